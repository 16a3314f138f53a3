"""Measure slot latency: from a budget's status that allows an eviction to the next accepted eviction under it."""

import subprocess
import threading
import time
from bisect import bisect_left
from typing import Any

from bench.common import OPERATOR, Departures, audit, fill, restore, say, session, spread, stamp
from harness import ControlPlane, binaries
from harness.observer import Observer
from harness.watches import watch_events

APPS, REPLICAS = 10, 10
_ADMIN = "kwok-admin"


class Openings:
    """The times at which each budget of a namespace changed from no allowed eviction to some, by name."""

    def __init__(self, plane: ControlPlane, space: str) -> None:
        self.times: dict[str, list[float]] = {}
        self._url = f"{plane.server}/apis/policy/v1/namespaces/{space}/poddisruptionbudgets"
        self._allowed: dict[str, int] = {}
        self._session = session(plane)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        for event in watch_events(self._session, self._url, seconds=300):
            if event["type"] == "BOOKMARK":
                continue
            item, now = event["object"], time.time()
            name = item["metadata"]["name"]
            allowed = item.get("status", {}).get("disruptionsAllowed", 0)
            if allowed and self._allowed.get(name) == 0:
                self.times.setdefault(name, []).append(now)
            self._allowed[name] = allowed


def _accepted(plane: ControlPlane, user: str, space: str, since: float) -> dict[str, list[float]]:
    """Return times of accepted evictions by app."""
    found: dict[str, list[float]] = {}
    for event in audit(plane, user):
        reference = event.get("objectRef", {})
        fits = reference.get("subresource") == "eviction" and reference["namespace"] == space
        if fits and event["responseStatus"]["code"] == 201 and stamp(event["stageTimestamp"]) >= since:
            found.setdefault(reference["name"].split("-")[0], []).append(stamp(event["stageTimestamp"]))
    return found


def latencies(plane: ControlPlane, observer: Observer) -> dict[str, Any]:
    """Measure 10 apps of 10 under `maxUnavailable: 1`, by the operator and by `kubectl drain`; ms. Pods take 0.5 s."""
    results: dict[str, Any] = {}
    for name, user in (("rescheduler", OPERATOR), ("kubectl drain", _ADMIN)):
        space = f"slots-{name.split(maxsplit=1)[0]}"
        slow = {"cluster/ready-after": "500ms"}
        fill(plane, observer, space, apps=APPS, replicas=REPLICAS, room=1, annotations=slow)
        openings, since, leaving = Openings(plane, space), time.time(), Departures(plane, space)
        if user == OPERATOR:
            plane.kubectl("annotate", "node", "drain1", "rescheduler.dev/maintenance=bench")
        else:
            program = [str(binaries.path("kubectl")), "--kubeconfig", str(plane.kubeconfig)]
            subprocess.run([*program, "drain", "drain1", "--ignore-daemonsets"], capture_output=True, check=False)
        taken = leaving.wait()
        sent = _accepted(plane, user, space, since)
        found = [
            (times[at] - opened) * 1000
            for app, opened_at in openings.times.items()
            for opened in opened_at
            if (at := bisect_left(times := sorted(sent.get(app, [])), opened)) < len(times)
        ]
        results[name] = {"seconds": taken, "ms": spread(found), "samples": sorted(found)}
        say(f"slot latency of {name}, {len(found)} slots: {results[name]['ms']}")
        restore(plane, observer, space, ["drain1"])
    return results
