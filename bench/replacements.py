"""Compare replacement first with plain eviction under the same budgets: time, and lowest count of Ready pods."""

import time
from typing import Any

from bench.common import fill, on, policy, restore, say
from harness import ControlPlane
from harness.observer import Observer


def replacements(plane: ControlPlane, observer: Observer) -> dict[str, Any]:
    """Move 10 apps of 10 under `maxUnavailable: 1` with and without replacement first; pods are Ready after 2 s."""
    results: dict[str, Any] = {}
    for mode in ("Preferred", "Never"):
        space = f"bench-{mode.lower()}"
        policy(plane, replacement=mode, maxEvictionsPerSecond=1000)
        fill(plane, observer, space, apps=10, replicas=10, room=1, annotations={"cluster/ready-after": "2s"})
        began, curve = time.monotonic(), list[tuple[float, int]]()
        plane.kubectl("annotate", "node", "drain1", "rescheduler.dev/maintenance=bench")
        while on(observer, space, "drain1") and time.monotonic() < began + 300:
            curve.append((time.monotonic() - began, _serving(observer, space)))
            time.sleep(0.1)
        lowest = min(count for _, count in curve)
        results[mode] = {"seconds": time.monotonic() - began, "lowest ready of 100": lowest, "curve": curve}
        say(f"replacement {mode}: {results[mode]['seconds']:.1f} s, lowest Ready {lowest} of 100")
        restore(plane, observer, space, ["drain1"])
    policy(plane, maxEvictionsPerSecond=1000)
    return results


def _serving(observer: Observer, space: str) -> int:
    return sum(
        "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))
        for pod in observer.pods(space)
    )
