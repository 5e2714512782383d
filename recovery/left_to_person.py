"""What a recovery leaves to a person at its end.

A runbook has steps that a recovery does only where its parameters say how to: without them it ends
well, and the platform may still be down. Such a recovery names them in a field of its result,
`left_to_person`: a text for each step, in the order of the runbook, each as an order to a person.
What is left comes before everything else that is told of the end, and is what to do next.
"""

from typing import Any

LEFT_TO_PERSON = "left_to_person"


def left_to_person(result: Any) -> list[str]:
    """What a person has still to do, by a recovery's result as the journal keeps it."""
    left = result.get(LEFT_TO_PERSON) if isinstance(result, dict) else None
    return [str(step) for step in left] if isinstance(left, list) else []
