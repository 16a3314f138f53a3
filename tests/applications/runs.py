"""Run one application: apply it, wait until it settles, and drain each node in turn."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import requests

from applications.loading import Application, Document, owner, placed
from applications.results import Drained, Result, below
from catalogue.cluster import RESCHEDULER
from catalogue.measures import Pod, finished, owner_of, stays
from catalogue.recorder import Recorder
from harness import ControlPlane, workloads
from harness.clients import ControlPlaneError
from harness.identities import Identity
from harness.min_ready import ready
from harness.operators import Operator, install
from harness.waiting import until
from invariants.end_state import differences, shape
from rescheduler.api import GROUP
from rescheduler.api.names import MAINTENANCE, POD_DELETION_COST

ZONES = ("zone-a", "zone-b", "zone-c")
REPLACEMENT_TIMEOUT = "15s"
SETTLED = 10.0
"""Seconds without a change after which an application counts as settled."""
STALLED = 20.0
"""Seconds without a change after which a drain with blockers counts as blocked."""
LIMIT = 240.0
"""Seconds that an application may take to settle, and a drain to end."""
_POLL = 0.5  # seconds
_RESOURCES = {
    "pods": "/api/v1/pods",
    "nodes": "/api/v1/nodes",
    "namespaces": "/api/v1/namespaces",
    "services": "/api/v1/services",
    "deployments": "/apis/apps/v1/deployments",
    "statefulsets": "/apis/apps/v1/statefulsets",
    "replicasets": "/apis/apps/v1/replicasets",
    "daemonsets": "/apis/apps/v1/daemonsets",
    "poddisruptionbudgets": "/apis/policy/v1/poddisruptionbudgets",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "nodedrains": f"{RESCHEDULER}/nodedrains",
}


def run(application: Application, nodes: int) -> Result:
    """Return the result of an application on a new control plane; an error of the setup is a result, too."""
    try:
        with ControlPlane.start(node_monitor_grace_period="50s", open_limits=True) as plane:
            identity = install(plane)
            plane.apply(
                workloads.policy(
                    "default",
                    maintenance={"maxUnavailable": "100%"},
                    drain={"replacementTimeout": REPLACEMENT_TIMEOUT},
                )
            )
            with Operator(identity, plane.workdir / "operator.log"):
                return Run(plane, application, nodes).result()
    except (ControlPlaneError, OSError, ValueError) as error:
        return Result(application.name, trouble=f"{type(error).__name__}: {error}"[:1000])


class Run:
    """An application on a control plane."""

    def __init__(self, plane: ControlPlane, application: Application, nodes: int) -> None:
        self._plane, self._application = plane, application
        self._admin = Identity.of_admin(plane)
        self._result = Result(application.name)
        self._recorders: list[Recorder] = []
        labels = {"kubernetes.io/arch": "amd64"}
        self._nodes = plane.add_nodes(nodes, prefix="node-", labels=labels, zones=ZONES)

    def result(self) -> Result:
        """Return the result."""
        self._apply()
        self._settle()
        result = self._result
        before = {node["metadata"]["name"]: shape(node) for node in self._every("nodes")}
        unsettled = self._unsettled()
        result.notes += (*unsettled.values(), *self._never_ran(unsettled))
        counts = self._counts()
        result.pods, result.deployments = len(self._own_pods()), len(counts)
        with ExitStack() as stack:
            self._recorders = [stack.enter_context(Recorder(self._plane, space, {})) for space in self._spaces()]
            for node in self._nodes:
                result.drains.append(self._drain(node))
            time.sleep(2)  # the watches see what the last drain did
        tallies = [each.tally for each in self._recorders]
        start = {name: count for tally in tallies for name, count in tally.start.items()}
        least = {name: count for tally in tallies for name, count in tally.least.items()}
        reported = self._not_replaced_first()
        result.notes += [f"{owner}: {message}" for owner, message in sorted(reported.items())]
        named = reported.keys() | {owner for drain in result.drains for owner in drain.waiting}
        fell = below(start, least, counts)
        result.below = [text for owner, text in fell.items() if owner not in named]
        result.below_reported = [text for owner, text in fell.items() if owner in named]
        result.past_budget = sum(tally.past_budget for tally in tallies)
        result.left = self._left(before, unsettled)
        return result

    # -- the application ----------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Apply the application as a user does: what others need first, and only kinds that the API server serves."""
        application, result = self._application, self._result
        space = application.name
        self._plane.apply(workloads.namespace(space))
        first, _ = application.groups()
        self._send(first)
        until(self._established, "the CRDs to be established", every=_POLL)
        served = self._served({each["apiVersion"] for each in application.documents})
        unknown = {each["kind"] for each in application.documents if (each["apiVersion"], each["kind"]) not in served}
        application.leave_out(unknown, "the API server does not serve the kind")
        application.documents = placed(application.documents, served, space)
        _, others = application.groups()
        self._send(others)
        result.objects = len(application.documents)
        result.notes += [f"{kind}: {why}" for kind, why in sorted(application.left_out.items())]

    def _send(self, documents: Sequence[Document]) -> None:
        if not documents:
            return
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        said = self._plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=body, check=False)
        self._result.notes += [
            f"refused: {line[:300]}" for line in said.splitlines() if line.lower().startswith("error")
        ]

    def _established(self) -> bool:
        return all(
            any(
                c["type"] == "Established" and c["status"] == "True"
                for c in raw.get("status", {}).get("conditions") or ()
            )
            for raw in self._every("customresourcedefinitions")
        )

    def _served(self, versions: set[str]) -> dict[tuple[str, str], bool]:
        """Return `apiVersion` and kind to whether it is namespaced, of all served kinds of these versions."""
        found: dict[tuple[str, str], bool] = {}
        for version in sorted(versions):
            try:
                kinds = self._admin.get(f"/apis/{version}" if "/" in version else f"/api/{version}")["resources"]
            except requests.HTTPError:
                continue  # the group or the version is not served
            found |= {(version, kind["kind"]): kind["namespaced"] for kind in kinds if "/" not in kind["name"]}
        return found

    def _settle(self) -> None:
        """Wait until no pod changes; bind claims meanwhile, because no provisioner runs."""
        bound = set[str]()
        deadline = time.monotonic() + LIMIT
        seen, since = None, time.monotonic()
        while time.monotonic() - since < SETTLED and time.monotonic() < deadline:
            bound |= self._bind_claims()
            now = sorted(
                (p["metadata"]["uid"], p["spec"].get("nodeName", ""), p["status"].get("phase", ""), ready(p))
                for p in self._own_pods()
            )
            if now != seen:
                seen, since = now, time.monotonic()
            time.sleep(_POLL)
        if bound:
            self._result.notes.append(f"volumes that no provisioner made, as network volumes: {len(bound)}")

    def _bind_claims(self) -> set[str]:
        """Make a network volume for each claim that has none; return names of the volumes."""
        made: list[Document] = []
        for claim in self._admin.get("/api/v1/persistentvolumeclaims")["items"]:
            meta, spec = claim["metadata"], claim["spec"]
            if claim.get("status", {}).get("phase") == "Bound" or spec.get("volumeName"):
                continue
            volume = {
                "capacity": spec["resources"]["requests"],
                "accessModes": spec["accessModes"],
                "storageClassName": spec.get("storageClassName", ""),
                "claimRef": {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
                "nfs": {"server": "simulated.invalid", "path": "/"},
            }
            name = {"name": f"simulated-{meta['uid']}"}
            made.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": name, "spec": volume})
        if made:
            self._plane.apply(*made)
        return {each["metadata"]["name"] for each in made}

    def _unsettled(self) -> dict[str, str]:
        """Return workloads that do not have all pods Ready, by name, each with its cause."""
        found: dict[str, str] = {}
        pods = self._own_pods()
        for resource, kind in (("deployments", "Deployment"), ("statefulsets", "StatefulSet")):
            for raw in self._every(resource):
                name, wanted = raw["metadata"]["name"], raw["spec"]["replicas"]
                if raw["metadata"]["namespace"] not in self._spaces():
                    continue
                mine = [pod for pod in pods if owner_of(pod) == owner(kind, name)]
                if (have := sum(map(ready, mine))) != wanted:
                    why = next((why for pod in mine if (why := _why_pending(pod))), "")
                    found[name] = f"{kind} {name} has {have} of {wanted} pods Ready{f': {why}' if why else ''}"
        return found

    def _never_ran(self, unsettled: Mapping[str, str]) -> list[str]:
        """Return the pods of other workloads that are not Ready, each with its cause."""
        known = {owner(kind, name) for name in unsettled for kind in ("Deployment", "StatefulSet")}
        return [
            f"the pod {pod['metadata']['name']} never ran: {_why_pending(pod)}"
            for pod in self._own_pods()
            if not ready(pod) and not finished(pod) and owner_of(pod) not in known
        ]

    # -- the drains ---------------------------------------------------------------------------------------------------

    def _drain(self, node: str) -> Drained:
        """Drain a node until it is Drained or blocked, and end the maintenance. Raises TimeoutError if it stays."""
        leaving = len(self._to_leave(node))
        self._annotate(node, "test")
        began = time.monotonic()
        seen, since, status, waiting = None, began, dict[str, Any](), set[str]()
        while status.get("phase") != "Drained" and time.monotonic() - began < LIMIT:
            status = self._status(node)
            waiting |= {self._owner(key) for key in status.get("waitsForNode") or ()}
            names = sorted(pod["metadata"]["uid"] for pod in self._to_leave(node))
            now = (status.get("phase"), names, sorted((b["pod"], b["class"]) for b in status.get("blockers") or ()))
            if now != seen:
                seen, since = now, time.monotonic()
            elif status.get("blockers") and time.monotonic() - since > STALLED:
                break
            time.sleep(_POLL)
        done = status.get("phase") == "Drained"
        drained = self._judged(node, status, leaving, time.monotonic() - began, done=done)
        drained = replace(drained, waiting=tuple(sorted(waiting)))
        self._annotate(node, None)
        until(lambda: not self._status(node, missing=True), f"the NodeDrain of {node} to go", seconds=120, every=_POLL)
        return drained

    def _not_replaced_first(self) -> dict[str, str]:
        """Return the owners whose pods left without a replacement first, with what an Event of a pod says."""
        events = self._admin.get("/api/v1/events?fieldSelector=reason=NotReplacedFirst,involvedObject.kind=Pod")
        return {self._owner(event["involvedObject"]["name"]): event["message"] for event in events["items"]}

    def _owner(self, key: str) -> str:
        """Return the owner of a pod, which may be gone, of its name or `namespace/name`."""
        name = key.rpartition("/")[2]
        return next((owner for each in self._recorders if (owner := each.owners.get(name))), key)

    def _judged(self, node: str, status: Mapping[str, Any], pods: int, seconds: float, *, done: bool) -> Drained:
        left = {f"{p['metadata']['namespace']}/{p['metadata']['name']}": p for p in self._to_leave(node)}
        found = list(status.get("blockers") or ())
        named = {f"{b.get('namespace', '')}/{b['pod']}" for b in found} | {b["pod"] for b in found}
        owners = {p["metadata"]["name"]: owner_of(p) for p in left.values()}
        blockers = {f"{owners.get(b['pod'], b['pod']) or b['pod']}: {b['class']}" for b in found}
        unexplained = [key for key, pod in left.items() if not named & {key, pod["metadata"]["name"]}]
        return Drained(node, done, round(seconds, 1), pods, tuple(sorted(blockers)), tuple(unexplained))

    def _annotate(self, node: str, value: str | None) -> None:
        body = {"metadata": {"annotations": {MAINTENANCE: value}}}
        self._admin.patch(f"/api/v1/nodes/{node}", body, dry=False)

    def _status(self, node: str, *, missing: bool = False) -> dict[str, Any]:
        """Return the status of a NodeDrain, or with `missing` all of it; empty if there is none."""
        try:
            found = self._admin.get(f"{RESCHEDULER}/nodedrains/{node}")
        except requests.HTTPError:
            return {}
        return found if missing else dict(found.get("status") or {})

    # -- what is there ------------------------------------------------------------------------------------------------

    def _left(self, before: Mapping[str, Any], unsettled: Mapping[str, str]) -> list[str]:
        """Return what is left behind, once nothing more changes."""
        deadline = time.monotonic() + 60
        while (found := list(self._differences(before, unsettled))) and time.monotonic() < deadline:
            time.sleep(_POLL)
        return found

    def _differences(self, before: Mapping[str, Any], unsettled: Mapping[str, str]) -> Iterator[str]:
        ours = {*self._spaces()}

        def every(resource: str) -> list[Document]:
            found = self._every(resource)
            if resource in ("deployments", "statefulsets"):
                return [
                    each
                    for each in found
                    if each["metadata"]["name"] not in unsettled and each["metadata"]["namespace"] in ours
                ]
            return found

        yield from differences(every, before)
        for resource in _RESOURCES:
            for each in self._every(resource):
                if resource != "customresourcedefinitions" and (marks := leftovers(each)):
                    yield f"{resource} {each['metadata']['name']} has {', '.join(marks)}"

    def _every(self, resource: str) -> list[Document]:
        return list(self._admin.get(_RESOURCES[resource])["items"])

    def _spaces(self) -> list[str]:
        return sorted({self._application.name, *self._application.namespaces()})

    def _own_pods(self) -> list[Pod]:
        return [pod for pod in self._every("pods") if pod["metadata"]["namespace"] in self._spaces()]

    def _to_leave(self, node: str) -> list[Pod]:
        pods = self._own_pods()
        return [pod for pod in pods if pod["spec"].get("nodeName") == node and not stays(pod) and not finished(pod)]

    def _counts(self) -> dict[str, int]:
        """Return the pods that each Deployment must keep. A Deployment that recreates its pods keeps none."""
        return {
            owner("Deployment", each["metadata"]["name"]): each["spec"]["replicas"]
            for each in self._every("deployments")
            if each["metadata"]["namespace"] in self._spaces() and each["spec"]["strategy"]["type"] != "Recreate"
        }


def _why_pending(pod: Pod) -> str:
    conditions = pod["status"].get("conditions") or ()
    return next((str(c.get("message", ""))[:200] for c in conditions if c["status"] == "False"), "")


def leftovers(raw: Document) -> list[str]:
    """Return the keys of Rescheduler in labels, annotations, finalizers, taints and scheduling gates of an object."""
    meta, spec = raw["metadata"], raw.get("spec") or {}
    keys = [*(meta.get("labels") or ()), *(meta.get("annotations") or ()), *(meta.get("finalizers") or ())]
    keys += [taint["key"] for taint in spec.get("taints") or ()]
    keys += [gate["name"] for gate in spec.get("schedulingGates") or ()]
    return sorted(key for key in keys if GROUP in key or key == POD_DELETION_COST)
