"""Taking the API of Kubernetes away under a recovery, before one of its changes.

A world has, besides what `Runs` wants of it, the `api` and a settable `within_seconds`.
"""

import threading

from recovery.stage import RETRY_DELAYS_SECONDS
from tests.faults.conftest import IS_WHOLE, kill_points

AWAY_POINTS = 8 if IS_WHOLE else 1
AWAY_SECONDS = 60.0 if IS_WHOLE else 2.0


def points_of_loss(events):
    """Where a worker is stopped for it: before each change; as spread as the time allows."""
    points = [
        (n, "stop")
        for n, side in kill_points(events)
        if side == "before" and events[n - 1][0] not in {"done", "undone"}
    ]
    if not IS_WHOLE or len(points) <= AWAY_POINTS:
        return points
    return [points[n * len(points) // AWAY_POINTS] for n in range(AWAY_POINTS)]


def run_through_loss(world, runs, point):
    """Run the recovery of a world; stop it there, take the API away, let it go on; how it ended."""
    world.retry_delays, world.lease_seconds = RETRY_DELAYS_SECONDS, 30
    world.within_seconds = 300  # the controllers, too, take their time to come back
    coming = threading.Timer(AWAY_SECONDS, world.api.come_back)

    def go_away():
        world.api.go_away()
        coming.start()

    try:
        return world.run(runs, kill=point, meanwhile=go_away)
    finally:
        coming.cancel()
        world.api.come_back()
