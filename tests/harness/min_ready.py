"""The lowest number of Ready pods over time, which a budget or replacement first promises."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.observer import Observer


def ready(pod: dict[str, Any]) -> bool:
    """Whether a Service sends requests to the pod: Ready, and not Terminating."""
    conditions = pod.get("status", {}).get("conditions", [])
    serving = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return serving and "deletionTimestamp" not in pod["metadata"]


@contextmanager
def lowest_ready(observer: Observer, namespace: str, *apps: str, every: float = 0.02) -> Iterator[dict[str, int]]:
    """Yield the lowest number of Ready pods by `app=` label while the block runs."""
    lowest: dict[str, int] = {}
    stop = threading.Event()

    def count() -> None:
        while not stop.wait(every):
            pods = [p["metadata"]["labels"].get("app") for p in observer.pods(namespace) if ready(p)]
            for app in apps:
                lowest[app] = min(lowest.get(app, len(pods)), pods.count(app))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield lowest
    finally:
        stop.set()
        thread.join()
