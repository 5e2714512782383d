"""Targets that are known by two names: each is leased by both, so that they are one.

Whoever reads a target from its parameters knows that a name of somebody's choice stands for a
place; the engine, which takes the leases, does not.
"""

_places: dict[str, str] = {}


def also_known(name: str, place: str) -> None:
    """Note that what is called so, and whatever is named as a part of it, is at this place."""
    _places[name] = place


def is_known(name: str) -> bool:
    """Whether its place was noted in this process."""
    return name in _places


def other_names(leased: str) -> list[str]:
    """The other names of what is leased by this one."""
    return [
        place + leased.removeprefix(name)
        for name, place in _places.items()
        if leased == name or leased.startswith(f"{name}/")
    ]
