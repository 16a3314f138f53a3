"""What the admission policies of pools cost: the creation of pods and of namespaces, with and without them in turns.

All is done with 200 exclusive pools: those policies that have pools as parameters run once for each.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import yaml

from bench.common import say, session, spread
from cluster import ControlPlane, workloads
from cluster.operators import ROOT
from cluster.waiting import until

POOLS, ROUNDS, PODS, NAMESPACES, WARM_UP = 200, 2, 100, 20, 10
_IN, _OUT = "pool0-0", "outside"
_NODE_POOL = "rescheduler.node-restriction.kubernetes.io/pool"
_GATED = {"schedulingGates": [{"name": "bench/held"}]}  # neither scheduled nor started: admission alone is timed
_EVERYTHING = [{"operator": "Exists"}]


class Policies:
    """The bindings of the policies of pools, to take away and to bring back."""

    def __init__(self, plane: ControlPlane) -> None:
        documents = list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
        self._plane = plane
        self._bindings = [
            document
            for document in documents
            if document["kind"].endswith("AdmissionPolicyBinding") and "-pool-" in document["metadata"]["name"]
        ]

    def bind(self) -> None:
        """Bring them back, and wait until the API server goes by them."""
        self._plane.apply(*self._bindings)
        until(lambda: self._in_force() == (True, True), "the policies to be in force")

    def unbind(self) -> None:
        """Take them away, and wait until the API server has forgotten them."""
        body = {"apiVersion": "v1", "kind": "List", "items": self._bindings}
        self._plane.kubectl("delete", "-f", "-", input=json.dumps(body))
        until(lambda: self._in_force() == (False, False), "the policies to be out of force")

    def _in_force(self) -> tuple[bool, bool]:
        """Whether pods are changed, and whether strangers are refused."""
        return (
            _NODE_POOL in self.dry_run(workloads.bare_pod("probe", _IN)),
            "is exclusive" in self.dry_run(workloads.bare_pod("probe", _OUT, tolerations=_EVERYTHING)),
        )

    def dry_run(self, body: dict[str, Any]) -> str:
        arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"]
        return self._plane.kubectl(*arguments, input=json.dumps(body), check=False)


class Creations:
    """Times single creations, from the request to the answer."""

    def __init__(self, plane: ControlPlane) -> None:
        self._api, self._session = f"{plane.server}/api/v1", session(plane)
        self._made = 0

    def pods(self, space: str, count: int) -> list[float]:
        """Create so many pods and remove them; ms each."""
        url = f"{self._api}/namespaces/{space}/pods"
        found = [self._one(url, lambda name: workloads.bare_pod(name, space, **_GATED)) for _ in range(count)]
        gone = self._session.delete(url, json={"gracePeriodSeconds": 0}, timeout=60)
        gone.raise_for_status()
        return found

    def namespaces(self, count: int) -> list[float]:
        """Create so many namespaces, which stay; ms each."""
        return [self._one(f"{self._api}/namespaces", workloads.namespace) for _ in range(count)]

    def _one(self, url: str, body: Callable[[str], dict[str, Any]]) -> float:
        self._made += 1
        text = json.dumps(body(f"made-{self._made}"))
        began = time.perf_counter()
        answer = self._session.post(url, data=text, headers={"Content-Type": "application/json"}, timeout=30)
        taken = time.perf_counter() - began
        answer.raise_for_status()
        return taken * 1000


def _pool(index: int) -> dict[str, Any]:
    """One of five namespaces and a selector that matches none; the last one names as many as a pool may."""
    count = 5000 if index == POOLS - 1 else 5
    spec = {
        "namespaces": [f"pool{index}-{number}" for number in range(count)],
        "namespaceSelector": {"matchLabels": {"team": f"team{index}"}},
        "nodeSelector": {"matchLabels": {"pool": f"pool{index}"}},
    }
    return {
        "apiVersion": "rescheduler.dev/v1alpha1",
        "kind": "NamespacePool",
        "metadata": {"name": f"pool{index}"},
        "spec": spec,
    }


def costs(plane: ControlPlane) -> dict[str, Any]:
    """Milliseconds of each creation, with the policies and without."""
    plane.apply(*(_pool(index) for index in range(POOLS)))
    policies, creations = Policies(plane), Creations(plane)
    plane.apply(workloads.namespace(_OUT))
    until(lambda: "is exclusive" in policies.dry_run(workloads.bare_pod("p", _OUT, tolerations=_EVERYTHING)), "pools")
    plane.apply(workloads.namespace(_IN))
    for space in (_IN, _OUT):
        until(lambda space=space: plane.kubectl("get", "sa", "default", "-n", space, check=False), "its account")
    what = {"in a pool": (_IN, creations.pods), "in no pool": (_OUT, creations.pods)}
    times: dict[str, dict[str, list[float]]] = {}
    for number in range(2 * ROUNDS):
        having = "with" if number % 2 == 0 else "without"
        policies.bind() if having == "with" else policies.unbind()
        for kind, (space, create) in what.items():
            create(space, WARM_UP)
            times.setdefault(kind, {}).setdefault(having, []).extend(create(space, PODS))
        times.setdefault("namespace", {}).setdefault(having, []).extend(creations.namespaces(NAMESPACES))
        say(f"admission, round {number + 1} of {2 * ROUNDS}, {having} the policies")
    return {kind: {having: spread(found) for having, found in sides.items()} for kind, sides in times.items()}
