"""Measure the cost of the admission policies of pools, with and without them in turns.

The creation of pods and of namespaces is timed. A policy with pools as parameters runs once for each pool. So the
measures are made with few pools, and with 200 pools of which few are read as parameters.
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from bench.common import say, session, spread
from harness import ControlPlane, workloads
from harness.operators import ROOT
from harness.waiting import until
from rescheduler.api import names
from rescheduler.api.pools import NamespacePool
from rescheduler.core.model.raw import RawObject
from rescheduler.core.pools.admission_params import skipped_pools

FEW, MANY = 3, 200
ROUNDS, PODS, NAMESPACES, WARM_UP = 5, 100, 20, 10
_IN, _OUT = "pool0-0", "outside"
_NODE_POOL = "rescheduler.node-restriction.kubernetes.io/pool"
_GATED = {"schedulingGates": [{"name": "bench/held"}]}  # neither scheduled nor started: only admission is timed
_EVERYTHING = [{"operator": "Exists"}]


class Policies:
    """The bindings of the policies of pools, which can be removed and restored."""

    def __init__(self, plane: ControlPlane) -> None:
        documents = list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
        self._plane = plane
        self._bindings = [
            document
            for document in documents
            if document["kind"].endswith("AdmissionPolicyBinding") and "-pool-" in document["metadata"]["name"]
        ]

    def bind(self) -> None:
        """Restore the bindings, and wait until the API server applies them."""
        self._plane.apply(*self._bindings)
        self.wait(in_force=True)

    def unbind(self) -> None:
        """Remove the bindings, and wait until the API server no longer applies them."""
        body = {"apiVersion": "v1", "kind": "List", "items": self._bindings}
        self._plane.kubectl("delete", "-f", "-", input=json.dumps(body))
        self.wait(in_force=False)

    def wait(self, *, in_force: bool) -> None:
        """Wait until pods are changed, other users refused and namespaces labelled, or none of it."""
        wanted, seconds = [in_force] * 3, 60  # the API server may notice a CRD only after 30 s
        until(lambda: self._seen() == wanted, f"policies in force: {in_force}", seconds=seconds)

    def _seen(self) -> list[bool]:
        return [
            _NODE_POOL in self._dry_run(workloads.bare_pod("probe", _IN)),
            "is exclusive" in self._dry_run(workloads.bare_pod("probe", _OUT, tolerations=_EVERYTHING)),
            "rescheduler.dev/pool" in self._dry_run(workloads.namespace("pool0-1")),
        ]

    def _dry_run(self, body: RawObject) -> str:
        arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"]
        return self._plane.kubectl(*arguments, input=json.dumps(body), check=False)


class Creations:
    """Times single creations, from the request to the answer."""

    def __init__(self, plane: ControlPlane) -> None:
        self._api, self._session = f"{plane.server}/api/v1", session(plane)
        self._made = 0

    def pods(self, space: str, count: int) -> list[float]:
        """Create pods and remove them; return ms for each."""
        url = f"{self._api}/namespaces/{space}/pods"
        found = [self._one(url, lambda name: workloads.bare_pod(name, space, **_GATED)) for _ in range(count)]
        self._session.delete(url, json={"gracePeriodSeconds": 0}, timeout=60).raise_for_status()
        return found

    def namespaces(self, count: int) -> list[float]:
        """Create namespaces, which stay; return ms for each."""
        return [self._one(f"{self._api}/namespaces", workloads.namespace) for _ in range(count)]

    def _one(self, url: str, body: Callable[[str], RawObject]) -> float:
        self._made += 1
        text = json.dumps(body(f"made-{self._made}"))
        began = time.perf_counter()
        answer = self._session.post(url, data=text, headers={"Content-Type": "application/json"}, timeout=30)
        taken = time.perf_counter() - began
        answer.raise_for_status()
        return taken * 1000


def _pool(index: int) -> RawObject:
    """Return an exclusive pool of five namespaces and a selector; its last name list has the maximum length."""
    count = 5000 if index == MANY - 1 else 5
    return workloads.pool(
        f"pool{index}",
        namespaces=[f"pool{index}-{number}" for number in range(count)],
        namespaceSelector={"matchLabels": {"team": f"team{index}"}},
        nodeSelector={"matchLabels": {"pool": f"pool{index}"}},
    )


def costs(plane: ControlPlane) -> dict[str, Any]:
    """Return milliseconds of each creation by object, with the policies and without."""
    policies, creations = Policies(plane), Creations(plane)
    plane.apply(workloads.namespace(_OUT), workloads.namespace(_IN, **{"rescheduler.dev/pool": "pool0"}))
    for space in (_IN, _OUT):
        account = partial(plane.kubectl, "get", "sa", "default", "-n", space, check=False)
        until(account, "the ServiceAccount")
    found: dict[str, Any] = {}
    for count in (FEW, MANY):
        made = [_pool(index) for index in range(count)]
        for name in skipped_pools(map(NamespacePool.from_object, made)):
            made[int(name.removeprefix("pool"))]["metadata"]["labels"] = {names.ADMISSION_SKIP: "true"}
        plane.apply(*made)
        policies.wait(in_force=True)
        measures = {
            f"pod in a pool, {count} pools": lambda number: creations.pods(_IN, number),
            f"pod in no pool, {count} pools": lambda number: creations.pods(_OUT, number),
            f"namespace, {count} pools": lambda number: creations.namespaces(number * NAMESPACES // PODS),
        }
        found |= _turns(policies, measures)
    return found


def _turns(policies: Policies, measures: dict[str, Callable[[int], list[float]]]) -> dict[str, Any]:
    """Measure with the policies, without, and with: other load of the machine affects both sides."""
    times: dict[str, dict[str, list[list[float]]]] = {what: {"with": [], "without": []} for what in measures}
    for number in range(ROUNDS):
        for having, change in (("without", policies.unbind), ("with", policies.bind)):
            change()
            for what, create in measures.items():
                create(WARM_UP)
                times[what][having].append(create(PODS))
        say(f"admission: round {number + 1} of {ROUNDS} of {', '.join(measures)}")
    return {what: {having: _summary(rounds) for having, rounds in sides.items()} for what, sides in times.items()}


def _summary(rounds: list[list[float]]) -> dict[str, Any]:
    """Return the summary over all rounds, and the 99th percentile of each round, which shows the noise."""
    return spread(taken for found in rounds for taken in found) | {
        "p99 of rounds": spread(spread(found)["p99"] for found in rounds),
        "median of rounds": spread(statistics.median(found) for found in rounds),
    }
