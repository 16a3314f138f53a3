"""Other software of a cluster, as small stand-ins that an entry names.

Each is a context manager that acts while the block runs. `EARLY` ones begin before the pods of the entry exist.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import requests

from catalogue.cluster import Cluster
from catalogue.measures import finished, going, owner_of
from harness import webhooks
from harness.clients import ControlPlaneError
from harness.min_ready import ready
from harness.waiting import in_background, repeated, until
from rescheduler.api.names import SCALE_DOWN_DISABLED

_EVERY = 0.2  # seconds between two looks
Neighbour = Callable[..., AbstractContextManager[None]]


@contextmanager
def _looking(step: Callable[[], object]) -> Iterator[None]:
    """Call `step` again and again; an object that is gone meanwhile costs one look."""

    def look() -> None:
        try:
            step()
        except (ControlPlaneError, requests.RequestException, ValueError):
            return

    with repeated(look, every=_EVERY):
        yield


@contextmanager
def _after(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` once, after a while."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def pruner(cluster: Cluster, *, label: str) -> AbstractContextManager[None]:
    """Delete pods that have the label and no owner, as GitOps tools prune."""

    def look() -> None:
        for pod in cluster.pods():
            labels = pod["metadata"].get("labels") or {}
            if label in labels and not pod["metadata"].get("ownerReferences") and not going(pod):
                cluster.delete_pod(pod)

    return _looking(look)


def reaper(cluster: Cluster, *, owner: str) -> AbstractContextManager[None]:
    """Delete each new pod of an owner, as a faulty cleanup script does."""
    first = {pod["metadata"]["uid"] for pod in cluster.pods()}

    def look() -> None:
        for pod in cluster.pods():
            if owner_of(pod) == owner and pod["metadata"]["uid"] not in first and not going(pod):
                cluster.delete_pod(pod)

    return _looking(look)


@contextmanager
def eviction_webhook(
    cluster: Cluster, *, code: int, message: str, moves_after: float = 0, dry_runs: str = "refused"
) -> Iterator[None]:
    """Answer evictions with a code, or let them pass if it is 0; move the pod a while after the first real request."""
    heard: set[str] = set()
    timers: list[threading.Timer] = []

    def decide(request: dict[str, Any]) -> webhooks.Denial | None:
        name = request["name"]
        if request.get("dryRun"):
            return (code, message) if code and dry_runs == "refused" else None
        if moves_after and name not in heard:
            heard.add(name)
            timers.append(threading.Timer(moves_after, cluster.delete_named, [name]))
            timers[-1].start()
        return (code, message) if code else None

    with webhooks.admission(cluster.plane, cluster.space, decide, resource="pods/eviction", operations=["CREATE"]):
        time.sleep(2)  # the API server learns of the webhook
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()


@contextmanager
def pod_webhook(cluster: Cluster, *, answer: str) -> Iterator[None]:
    """Disturb updates of pods: `error` refuses with 500, `sidecar` adds a container, which no pod may get later."""

    def decide(request: dict[str, Any]) -> webhooks.Denial | webhooks.Patch | None:
        if answer == "error":
            return 500, "the policy engine is not available"
        return [{"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "simulated"}}]

    mutating = answer == "sidecar"
    with webhooks.admission(
        cluster.plane, cluster.space, decide, resource="pods", operations=["UPDATE"], mutating=mutating
    ):
        until(lambda: not cluster.may_annotate(cluster.pods()[0]), "the webhook to be called")
        yield


@contextmanager
def admission_policy(cluster: Cluster, *, expression: str, message: str, operations: list[str]) -> Iterator[None]:
    """Refuse pods for which a CEL expression is false, with 403 as policy engines do."""
    name = f"{cluster.space}.example.com"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["pods"]}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.space}}}
    checked = {"expression": expression, "message": message, "reason": "Forbidden"}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [checked], "failurePolicy": "Fail"}
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy"}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
    cluster.plane.apply(
        {**kind, "metadata": {"name": name}, "spec": spec},
        {**kind, "kind": f"{kind['kind']}Binding", "metadata": {"name": name}, "spec": binding},
    )
    time.sleep(3)  # the API server compiles the policy
    try:
        yield
    finally:
        for each in (f"{kind['kind']}Binding", kind["kind"]):
            cluster.plane.kubectl("delete", each.lower(), name, "--ignore-not-found")


def gate_admitter(cluster: Cluster, *, owner: str, at_once: int) -> AbstractContextManager[None]:
    """Remove the scheduling gates of pods as long as fewer than the quota run, as job queues do."""

    def look() -> None:
        pods = [pod for pod in cluster.pods() if owner_of(pod) == owner]
        gated = [pod for pod in pods if pod["spec"].get("schedulingGates")]
        room = at_once - (len(pods) - len(gated))
        for pod in gated[: max(0, room)]:
            cluster.patch_pod(pod, {"spec": {"schedulingGates": []}})

    return _looking(look)


def single_writer(cluster: Cluster, *, owner: str) -> AbstractContextManager[None]:
    """Set a pod of the owner Ready only while it is the only one: the others wait for a lock on their volume."""

    def look() -> None:
        pods = [p for p in cluster.pods() if owner_of(p) == owner and p.get("status", {}).get("phase") == "Running"]
        if len(pods) == 1 and not ready(pods[0]) and not going(pods[0]):
            cluster.set_ready(pods[0])

    return _looking(look)


def late_pod(cluster: Cluster, *, owner: str, after: float) -> AbstractContextManager[None]:
    """Bind a new pod to the drained node after a while, as a scheduler does that has not seen the cordon."""

    def act() -> None:
        cluster.plane.apply(cluster.owned(owner, nodeName=cluster.nodes[0]))

    return _after(after, act)


@contextmanager
def custom_owner(cluster: Cluster, *, owner: str, replicas: int) -> Iterator[None]:
    """Keep pods of a custom resource without a scale subresource, as many operators do."""

    def look() -> None:
        alive = [pod for pod in cluster.pods() if owner_of(pod) == owner and not going(pod) and not finished(pod)]
        for _ in range(replicas - len(alive)):
            cluster.plane.apply(cluster.owned(owner))

    with _looking(look):
        yield


def returns_to_node(cluster: Cluster, *, owner: str, replicas: int) -> AbstractContextManager[None]:
    """Create a pod on the drained node again and again, as a controller does that sets `spec.nodeName`."""

    def look() -> None:
        there = sum(owner_of(pod) == owner for pod in cluster.pods())
        for _ in range(replicas - there):
            cluster.plane.apply(cluster.owned(owner, nodeName=cluster.nodes[0]))

    return _looking(look)


def completes(cluster: Cluster, *, owner: str, after: float) -> AbstractContextManager[None]:
    """End the pods of an owner after a while, with success."""

    def act() -> None:
        for pod in cluster.pods():
            if owner_of(pod) == owner:
                cluster.patch_status(pod, {"phase": "Succeeded"})

    return _after(after, act)


def crash_loop(cluster: Cluster) -> AbstractContextManager[None]:
    """Report that the container of each pod that is not Ready crashes, as its kubelet does."""
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}

    def look() -> None:
        for pod in cluster.pods():
            statuses = pod["status"].get("containerStatuses") or []
            if statuses and not ready(pod) and "waiting" not in (statuses[0].get("state") or {}):
                crashed = {**statuses[0], "ready": False, "started": False, "state": {"waiting": waiting}}
                cluster.patch_status(pod, {"containerStatuses": [crashed]})

    return _looking(look)


def rollout(cluster: Cluster, *, deployment: str, after: float) -> AbstractContextManager[None]:
    """Change the image of a Deployment after a while."""
    image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"}]
    command = ("patch", "deploy", deployment, "-n", cluster.space, "--type=json", "-p", json.dumps(image))
    return _after(after, lambda: cluster.plane.kubectl(*command))


def helper(
    cluster: Cluster, *, owner: str, called: str, replicas: int, controlled: bool, labels: dict[str, str] | None = None
) -> AbstractContextManager[None]:
    """Create one pod next to each pod of an owner, controlled by that pod or by nobody.

    A pod that loses its helper is not Ready from then on, like one that loses a mount or a disk. `replicas`: number of
    helpers at first.
    """
    del replicas  # the runner waits for that many
    served: set[str] = set()  # uids of pods that have had a helper

    def look() -> None:
        pods = cluster.pods()
        there = {pod["metadata"]["name"] for pod in pods if not going(pod)}
        for pod in pods:
            uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
            name = f"{called}-{uid[:8]}"
            if owner_of(pod) != owner or not node or going(pod) or name in there:
                continue
            if uid in served:
                cluster.set_ready(pod, "False")
                continue
            made = cluster.pod_of(called, name, labels or {}, nodeName=node)
            if controlled:
                reference = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": uid}
                made["metadata"]["ownerReferences"] = [reference | {"controller": True}]
            cluster.plane.apply(made)
            served.add(uid)

    return _looking(look)


def autoscaler(
    cluster: Cluster, *, after: float, most: int = 1, least: int | None = None
) -> AbstractContextManager[None]:
    """Add up to `most` nodes, each as soon as a pod has been Pending for a while.

    `least`: remove a node that has been empty for as long, unless it has the opt-out, as long as more nodes than this
    are left. None: remove no node.
    """
    since: dict[str, float] = {}
    before = len(cluster.nodes)

    def due(keys: list[str]) -> list[str]:
        """Return the keys that were seen for long enough."""
        now = time.monotonic()
        return [key for key in keys if now - since.setdefault(key, now) >= after]

    def look() -> None:
        pods, nodes = cluster.pods(), cluster.nodes_now() if least is not None else []
        used = {pod["spec"].get("nodeName") for pod in pods}
        waiting = [p["metadata"]["uid"] for p in pods if not p["spec"].get("nodeName") and not going(p)]
        empty = [n["metadata"]["name"] for n in nodes if n["metadata"]["name"] not in used]
        kept = [n["metadata"]["name"] for n in nodes if n["metadata"]["annotations"].get(SCALE_DOWN_DISABLED) == "true"]
        for key in since.keys() - {*waiting, *empty}:
            del since[key]
        if due(waiting) and len(cluster.nodes) - before < most:
            since.clear()
            cluster.add_node()
        elif least is not None and len(nodes) > least:
            for node in [name for name in due(empty) if name not in kept][:1]:
                cluster.remove_node(node)

    return _looking(look)


def controllers_away(cluster: Cluster, *, after: float, seconds: float) -> AbstractContextManager[None]:
    """Pause kube-controller-manager for a while."""

    def run(ended: threading.Event) -> None:
        if not ended.wait(after):
            with cluster.plane.paused("kube-controller-manager"):
                ended.wait(seconds)

    return in_background(run)


NEIGHBOURS: dict[str, Neighbour] = {
    each.__name__.replace("_", "-"): each
    for each in (
        pruner,
        reaper,
        eviction_webhook,
        pod_webhook,
        admission_policy,
        gate_admitter,
        single_writer,
        late_pod,
        custom_owner,
        returns_to_node,
        completes,
        crash_loop,
        rollout,
        helper,
        autoscaler,
        controllers_away,
    )
}
EARLY = frozenset({"gate-admitter", "single-writer", "custom-owner", "returns-to-node", "helper"})


def start(cluster: Cluster, described: dict[str, Any]) -> AbstractContextManager[None]:
    """Return the stand-in that an entry describes: its `name`, and its settings."""
    settings = {key.replace("-", "_"): value for key, value in described.items() if key != "name"}
    return NEIGHBOURS[described["name"]](cluster, **settings)
