"""The lowest number of Ready pods over time, which a budget or replacement first promises."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.observer import Observer
from harness.waiting import repeated


def ready(pod: Mapping[str, Any]) -> bool:
    """Whether a Service sends requests to the pod: Ready, and not Terminating."""
    conditions = pod.get("status", {}).get("conditions", [])
    serving = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return serving and "deletionTimestamp" not in pod["metadata"]


@contextmanager
def lowest_ready(observer: Observer, namespace: str, *apps: str, every: float = 0.02) -> Iterator[dict[str, int]]:
    """Yield the lowest number of Ready pods by `app=` label while the block runs."""
    lowest: dict[str, int] = {}

    def count() -> None:
        pods = [p["metadata"]["labels"].get("app") for p in observer.pods(namespace) if ready(p)]
        for app in apps:
            lowest[app] = min(lowest.get(app, len(pods)), pods.count(app))

    with repeated(count, every=every):
        yield lowest
