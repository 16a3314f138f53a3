"""Measure pools: the time of a mapping change, the memory of many pools, and 500 pods that one pool moves."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from bench.common import deploy_apps, policy, say, session, spread
from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import Operator
from harness.waiting import until
from harness.watches import watch_events
from rescheduler.core.model.raw import RawObject

APPS, REPLICAS, ROOM = 25, 20, 2
POOLS, SPACES, CHANGES = 200, 5000, 5
_LABEL = "rescheduler.dev/pool"
_SETTLED = 75  # seconds: one full re-sync


class Serving:
    """Watch a namespace's pods: at every revision, the pods of each app that are Ready and not Terminating."""

    def __init__(self, plane: ControlPlane, space: str) -> None:
        url, self._session = f"{plane.server}/api/v1/namespaces/{space}/pods", session(plane)
        first = self._session.get(url, timeout=30).json()
        self._pods = {item["metadata"]["uid"]: self._row(item) for item in first["items"]}
        self._ready = Counter(app for app, ready in self._pods.values() if ready)
        self.lowest, self.revisions = Counter(self._ready), 0
        self.made = set(self._pods)
        version = first["metadata"]["resourceVersion"]
        threading.Thread(target=self._follow, args=(url, version), daemon=True).start()

    @staticmethod
    def _row(item: dict[str, Any]) -> tuple[str, bool]:
        conditions = item.get("status", {}).get("conditions", [])
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return item["metadata"]["labels"]["app"], ready and "deletionTimestamp" not in item["metadata"]

    def _follow(self, url: str, version: str) -> None:
        with contextlib.suppress(requests.RequestException):  # the control plane ends before the watch
            for event in watch_events(self._session, url, version=version):
                if event["type"] == "BOOKMARK":
                    continue
                uid, gone = event["object"]["metadata"]["uid"], event["type"] == "DELETED"
                before, after = self._pods.pop(uid, None), None if gone else self._row(event["object"])
                if after:
                    self._pods[uid] = after
                    self.made.add(uid)
                for row, change in ((before, -1), (after, 1)):
                    if row and row[1]:
                        self._ready[row[0]] += change
                self.revisions += 1
                self.lowest = Counter({app: min(count, self._ready[app]) for app, count in self.lowest.items()})

    def has_seen(self, uids: Iterable[str]) -> bool:
        """Whether every event until only these pods existed has been counted."""
        return self._pods.keys() == set(uids)


def moved(plane: ControlPlane, observer: Observer) -> dict[str, Any]:
    """Add a namespace of 500 pods to a pool that moves its running pods."""
    space, total = "bench-pool", APPS * REPLICAS
    policy(plane, replacement="Preferred", maxEvictionsPerSecond=1000)
    away = plane.add_nodes(6, prefix="away", labels={"bench": "pool"})
    home = plane.add_nodes(6, prefix="home", labels={"bench": "pool", "pool": "yes"})
    plane.kubectl("cordon", *home)
    here = {"nodeSelector": {"bench": "pool"}}
    deploy_apps(plane, space, apps=APPS, replicas=REPLICAS, room=ROOM, **here)
    plane.kubectl("uncordon", *home)
    time.sleep(1)
    serving, began = Serving(plane, space), time.monotonic()
    selector = {"matchLabels": {"pool": "yes"}}
    plane.apply(workloads.pool("bench", namespaces=[space], nodeSelector=selector, existingPods="Move"))

    def there() -> bool:
        return sum(len(observer.pods(space, node=node)) for node in home) == total and not any(
            observer.pods(space, node=node) for node in away
        )

    until(there, "all pods to be in the pool", seconds=240, every=0.5)
    seconds = time.monotonic() - began
    now = [pod["metadata"]["uid"] for pod in observer.pods(space)]
    until(lambda: serving.has_seen(now), "the watch to report every change", seconds=120)
    lowest = min(serving.lowest.values())
    say(f"{total} pods moved in {seconds:.0f} s over {serving.revisions} revisions; lowest Ready of an app {lowest}")
    return {
        "pods": total,
        "seconds": seconds,
        "revisions": serving.revisions,
        "lowest ready of an app of 20": lowest,
        "pods made for each moved": (len(serving.made) - total) / total,
    }


def many(plane: ControlPlane, identity: Any) -> dict[str, Any]:
    """Measure 200 pools with 5,000 namespaces: added memory of the operator, and changes of 25 namespaces."""
    log = plane.workdir / "many.log"
    with Operator(identity, log) as operator:
        time.sleep(_SETTLED)
        alone = operator.memory()
    names = [f"space{index}" for index in range(SPACES)]
    say(f"creating {SPACES} namespaces and {POOLS} pools; the operator alone has {alone:.0f} MB")
    _create(plane, "/api/v1/namespaces", [workloads.namespace(name) for name in names])
    each = SPACES // POOLS
    pools = [
        workloads.pool(
            f"pool{index}",
            namespaces=names[index * each : (index + 1) * each],
            nodeSelector={"matchLabels": {"pool": f"pool{index}"}},
        )
        for index in range(POOLS)
    ]
    with Operator(identity, log) as operator:
        began = time.monotonic()
        _create(plane, "/apis/rescheduler.dev/v1alpha1/namespacepools", pools)
        until(lambda: _labelled(plane) == SPACES, "all namespaces to be labelled", seconds=240, every=1)
        all_of_it = time.monotonic() - began
        say(f"{SPACES} namespaces were labelled {all_of_it:.0f} s after the first of {POOLS} pools")
    with Operator(identity, log) as operator:
        time.sleep(_SETTLED)
        weight = operator.memory() - alone
        times = [_change(plane, names, index) for index in range(CHANGES)]
    say(f"{weight:.1f} MB more; a change of 25 namespaces: {', '.join(f'{t * 1000:.0f} ms' for t in times)}")
    return {"memory, MB": weight, "all labelled, s": all_of_it, "25 namespaces, s": spread(times)}


def _create(plane: ControlPlane, path: str, objects: Sequence[RawObject]) -> None:
    http = session(plane)
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(lambda body: http.post(plane.server + path, json=body, timeout=60), objects):
            answer.raise_for_status()


def _labelled(plane: ControlPlane, selector: str = _LABEL) -> int:
    accept = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    query = {"labelSelector": selector}
    answer = session(plane).get(f"{plane.server}/api/v1/namespaces", headers=accept, params=query, timeout=60)
    return len(answer.json()["items"] or ())


def _change(plane: ControlPlane, names: list[str], index: int) -> float:
    """Move the namespaces of the next pool to this one; return seconds until all have its label."""
    each, mine, taken = SPACES // POOLS, index * 2, index * 2 + 1
    _claim(plane, taken, ["nothing"])
    until(lambda: not _labelled(plane, f"{_LABEL}=pool{taken}"), "the namespaces to leave their pool", every=0.05)
    began = time.monotonic()
    _claim(plane, mine, names[mine * each : (mine + 2) * each])
    until(lambda: _labelled(plane, f"{_LABEL}=pool{mine}") == 2 * each, "the change to be applied", every=0.02)
    return time.monotonic() - began


def _claim(plane: ControlPlane, index: int, names: list[str]) -> None:
    path = f"{plane.server}/apis/rescheduler.dev/v1alpha1/namespacepools/pool{index}"
    headers = {"Content-Type": "application/merge-patch+json"}
    body = json.dumps({"spec": {"namespaces": names}})
    session(plane).patch(path, data=body, headers=headers, timeout=30).raise_for_status()
