"""Writes on pods and nodes, by the operator's identity and by others: each write is tried.

The API server also has OpenShift's check (OwnerReferencesPermissionEnforcement), and limits kubelets to their own Node
(NodeRestriction).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from harness import ControlPlane, workloads
from harness.identities import Identity
from harness.operators import NAMESPACE, install, unguarded
from harness.waiting import until
from rescheduler.api import GROUP, SERVED_VERSIONS
from rescheduler.api.names import CANCELLED, FENCED, MAINTENANCE, MOVE, POD_DELETION_COST
from rescheduler.core.model import release_record
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.release_record import RETURNED_POD_DELETION_COST, ReleaseRecord
from rescheduler.core.pools.kubelet_labels import kubelet_may_set

PLUGINS = "NodeRestriction,OwnerReferencesPermissionEnforcement"
SPACE = "shop"
NODE = "/api/v1/nodes/n1"
PODS = f"/api/v1/namespaces/{SPACE}/pods"


@dataclass
class Pod:
    """A pod of a Deployment, with its owners.

    Attributes:
        replica_set, deployment: references for the pod's controller.
        others: its other ownerReferences.
    """

    path: str
    name: str
    uid: str
    replica_set: dict[str, Any]
    deployment: dict[str, Any]
    others: list[RawObject]

    def move(self) -> ReleaseRecord:
        """Return the record of its move, as the operator makes it."""
        rs, deployment = self.replica_set, self.deployment
        since = datetime(2026, 1, 1, tzinfo=UTC)
        owners = (deployment["name"], deployment["uid"], rs["name"], rs["uid"])
        return ReleaseRecord("NodeDrain/n1", None, 1, since, 1, *owners)

    def record(self, **changes: str) -> str:
        """Return the annotation of its move."""
        return json.dumps(json.loads(self.move().to_annotation()) | changes)

    def owned(
        self, *owners: RawObject, annotations: Mapping[str, str | None] | None = None, **metadata: Any
    ) -> dict[str, Any]:
        """Return a patch of its owners."""
        found = {"uid": self.uid, "ownerReferences": list(owners), "annotations": dict(annotations or {})}
        return {"metadata": found | metadata}

    def release(self, *, record: str | None = None, **controller: Any) -> dict[str, Any]:
        """Return the operator's patch that releases it; `controller`: other fields of the new reference."""
        patch = dict(release_record.release_patch(self.uid, "", self.others, self.move()))
        patch["metadata"]["ownerReferences"][-1] |= controller
        if record is not None:
            patch["metadata"]["annotations"][MOVE] = record
        return patch

    def give_back(self, **controller: Any) -> dict[str, Any]:
        """Return the operator's patch that returns it."""
        patch = dict(release_record.return_patch(self.uid, "", self.others, self.move()))
        patch["metadata"]["ownerReferences"][-1] |= controller
        return patch

    def settle(self) -> dict[str, Any]:
        """Return the operator's patch that removes the record."""
        return dict(release_record.clear_patch(self.uid, "", self.move()))


@dataclass
class Cluster:
    """A control plane with its admission policies in effect.

    Attributes:
        steady, released, returned: pods, each of its own Deployment.
    """

    plane: ControlPlane
    admin: Identity
    operator: Identity
    steady: Pod
    released: Pod
    returned: Pod


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    flags = {"kube-apiserver": {"enable-admission-plugins": PLUGINS}}
    with ControlPlane.start(extra_args=flags) as plane:
        install(plane)
        plane.add_nodes(2)
        plane.kubectl("create", "namespace", SPACE)
        plane.kubectl("create", "configmap", "other", "-n", SPACE)
        names = ("steady", "released", "returned")
        plane.apply(*(workloads.deployment(name, 1, SPACE) for name in names), workloads.bare_pod("bare", SPACE))
        with (
            Identity.of_admin(plane) as admin,
            Identity.of_account(plane, NAMESPACE, "rescheduler") as operator,
        ):
            until(lambda: _ready(plane) == 4, "the pods to be Ready")
            until(lambda: _in_force(admin, operator), "the policies to be in force")
            made = Cluster(plane, admin, operator, *(_pod(plane, admin, name) for name in names))
            for pod in (made.released, made.returned):
                assert operator.patch(pod.path, pod.release(), dry=False) == ""
            until(lambda: _ready(plane) == 6, "the replacements")
            assert operator.patch(made.returned.path, made.returned.give_back(), dry=False) == ""
            yield made


def _ready(plane: ControlPlane) -> int:
    jsonpath = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{end}'
    return plane.kubectl("get", "pods", "-n", SPACE, "-o", f"jsonpath={jsonpath}").split().count("True")


def _in_force(admin: Identity, operator: Identity) -> bool:
    """Wait until the API server applies the policies: until it has read them, every write passes."""
    noted: RawObject = {"metadata": {"annotations": {MOVE: "x", CANCELLED: "x", "probe": "x"}}}
    pod = admin.get(PODS)["items"][0]["metadata"]["name"]
    tried = [who.patch(path, noted) for who in (admin, operator) for path in (NODE, f"{PODS}/{pod}")]
    status = operator.patch(f"{NODE}/status", noted)
    return all(tried) and bool(status) and bool(operator.delete(f"{PODS}/{pod}"))


def _pod(plane: ControlPlane, admin: Identity, app: str) -> Pod:
    """Return the only pod of this Deployment, with an owner in addition to its ReplicaSet."""
    (found,) = plane.get("pods", "-n", SPACE, "-l", f"app={app}")["items"]
    (controller,) = found["metadata"]["ownerReferences"]
    deployment = plane.get("deployment", app, "-n", SPACE)["metadata"]
    other = plane.get("configmap", "other", "-n", SPACE)["metadata"]
    kept = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": other["uid"]}
    path, uid = f"{PODS}/{found['metadata']['name']}", found["metadata"]["uid"]
    assert admin.patch(path, {"metadata": {"ownerReferences": [kept, controller]}}, dry=False) == ""
    return Pod(
        path,
        found["metadata"]["name"],
        uid,
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": controller["name"], "uid": controller["uid"]}
        | {"controller": True},
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": app, "uid": deployment["uid"], "controller": True},
        [kept],
    )


def check(expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Check that every write was answered with the expected words; empty words: it passed."""
    assert expected.keys() == found.keys()
    wrong = [
        f"{name}: {found[name] or 'let in'} (expected: {words or 'let in'})"
        for name, words in expected.items()
        if (words not in found[name] if words else found[name])
    ]
    assert not wrong, "\n".join(wrong)


def eviction(pod: Pod, **options: Any) -> dict[str, Any]:
    """Return an Eviction of this pod, by its UID by default."""
    found: dict[str, Any] = {"apiVersion": "policy/v1", "kind": "Eviction"}
    found["metadata"] = {"name": pod.name, "namespace": SPACE}
    return found | {"deleteOptions": {"preconditions": {"uid": pod.uid}} | options}


# -- the operator's own identity on pods -----------------------------------------------------------------------------


@pytest.mark.every_version("limits of writes")
def test_a_pod_is_released_returned_and_settled_by_the_rights_of_the_chart(cluster: Cluster) -> None:
    """The fixture did the first two for good. The operator may write owners because it may delete pods."""
    steady, released, returned = cluster.steady, cluster.released, cluster.returned
    given_back = cluster.admin.get(returned.path)
    assert given_back["metadata"]["ownerReferences"][-1] == returned.replica_set
    tried = {
        "release": cluster.operator.patch(steady.path, steady.release()),
        "release, as JSON without spaces": cluster.operator.patch(
            steady.path, steady.release(record=steady.record().replace(" ", ""))
        ),
        "release again": cluster.operator.patch(returned.path, returned.release()),
        "return": cluster.operator.patch(released.path, released.give_back()),
        "settle": cluster.operator.patch(returned.path, returned.settle()),
        "settle with the user's own cost": cluster.operator.patch(
            returned.path, {"metadata": {"annotations": {MOVE: None, POD_DELETION_COST: "5"}}}
        ),
        "settle where no ReplicaSet would take the pod": cluster.operator.patch(released.path, released.settle()),
        "a patch that changes nothing": cluster.operator.patch(released.path, {"metadata": {}}),
        "evict": cluster.operator.create(f"{released.path}/eviction", eviction(released)),
        "evict with a shorter grace": cluster.operator.create(
            f"{released.path}/eviction", eviction(released, gracePeriodSeconds=1)
        ),
        "delete": cluster.operator.delete(released.path, preconditions={"uid": released.uid}),
        "delete with a shorter grace": cluster.operator.delete(
            released.path, preconditions={"uid": released.uid}, gracePeriodSeconds=1
        ),
    }
    check(dict.fromkeys(tried, ""), tried)


def test_the_api_server_minds_who_changes_owners(cluster: Cluster) -> None:
    """Check the plugin: without the right to delete a pod nobody may change its owners."""
    plane = cluster.plane
    plane.kubectl("create", "role", "patcher", "-n", SPACE, "--verb=get,patch", "--resource=pods")
    plane.kubectl("create", "serviceaccount", "patcher", "-n", SPACE)
    account = f"--serviceaccount={SPACE}:patcher"
    plane.kubectl("create", "rolebinding", "patcher", "-n", SPACE, "--role=patcher", account)
    with Identity.of_account(plane, SPACE, "patcher") as patcher:
        path, patch = cluster.steady.path, cluster.steady.owned(*cluster.steady.others)
        until(lambda: "can't delete" in patcher.patch(path, patch), "the plugin to refuse")


@pytest.mark.every_version("limits of writes")
def test_every_other_write_of_the_operator_on_a_pod_is_refused(cluster: Cluster) -> None:
    steady, released, returned = cluster.steady, cluster.released, cluster.returned
    rs, deployment, others = steady.replica_set, steady.deployment, steady.others
    owners, notes = (
        "change no owner of a pod except its controller",
        "may write the annotation rescheduler.dev/move only",
    )
    costs, rest = "pod-deletion-cost only when it returns", "nothing else in a pod's metadata"
    blocked = "cannot set blockOwnerDeletion"  # the plugin answers before the policy
    labels, annotations, spec = "change no label of a pod", "change no annotation of a pod", "not change a pod's spec"
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "name": "more", "uid": "1"}
    move = {MOVE: steady.record()}
    longer = [{"key": "a", "operator": "Exists"}]
    containers = cluster.admin.get(steady.path)["spec"]["containers"]
    image = {"containers": [{**containers[0], "image": "mine"}]}

    def meta(**fields: Any) -> dict[str, Any]:
        return {"metadata": fields}

    def swapped(pod: Pod) -> str:
        return pod.record(deploymentUID=pod.replica_set["uid"], replicaSetUID=pod.deployment["uid"])

    table: list[tuple[str, Pod, RawObject, str]] = [
        # Labels: of others, of pools, of the ReplicaSet; added, changed, removed; also with a release.
        ("a new label", steady, meta(labels={"x": "y"}), labels),
        ("a changed label", steady, meta(labels={"app": "y"}), labels),
        ("a removed label", steady, meta(labels={"app": None}), labels),
        ("the hash", steady, meta(labels={"pod-template-hash": "rescheduler-released"}), labels),
        ("the pool", steady, meta(labels={"rescheduler.dev/pool": "y"}), "denied request"),
        (
            "a label beside a release",
            steady,
            steady.owned(*others, deployment, annotations=move, labels={"a": "b"}),
            labels,
        ),
        # Annotations.
        ("a foreign annotation", steady, meta(annotations={"x": "y"}), annotations),
        ("another one of ours", steady, meta(annotations={"rescheduler.dev/do-not-disrupt": "true"}), annotations),
        ("a record without a release", steady, meta(annotations=move), notes),
        ("another record of a released pod", released, meta(annotations={MOVE: released.record(cause="x")}), notes),
        ("another record of a returned pod", returned, meta(annotations={MOVE: returned.record(cause="x")}), notes),
        ("a cost without a return", steady, meta(annotations={POD_DELETION_COST: RETURNED_POD_DELETION_COST}), costs),
        (
            "a cost of a released pod",
            released,
            meta(annotations={POD_DELETION_COST: RETURNED_POD_DELETION_COST}),
            costs,
        ),
        ("another cost of a returned pod", returned, meta(annotations={POD_DELETION_COST: "1"}), costs),
        ("a low cost with a return", released, meta(annotations={POD_DELETION_COST: "-1"}), costs),
        # Owners.
        ("no owners", steady, meta(ownerReferences=None), owners),
        ("no controller", steady, steady.owned(*others), owners),
        ("no controller, with a record", steady, steady.owned(*others, annotations=move), owners),
        ("the ReplicaSet as a mere owner", steady, steady.owned(*others, rs | {"controller": False}), owners),
        (
            "both, the Deployment as controller",
            steady,
            steady.owned(*others, rs | {"controller": False}, deployment, annotations=move),
            owners,
        ),
        (
            "both, the Deployment as an owner",
            steady,
            steady.owned(*others, rs, deployment | {"controller": False}, annotations=move),
            owners,
        ),
        ("one owner more", steady, steady.owned(*others, rs, stranger), owners),
        ("one owner less", steady, steady.owned(rs), owners),
        ("one owner less in a release", steady, steady.owned(deployment, annotations=move), owners),
        ("one owner more in a release", steady, steady.owned(*others, stranger, deployment, annotations=move), owners),
        ("the ReplicaSet, its deletion no longer blocked", steady, steady.owned(*others, rs), owners),
        ("another ReplicaSet", steady, steady.owned(*others, rs | {"name": "x", "uid": "1"}, annotations=move), owners),
        ("the UID of another ReplicaSet", steady, steady.owned(*others, rs | {"uid": "1"}), owners),
        ("a release without a record", steady, steady.owned(*others, deployment), owners),
        ("a release with words", steady, steady.release(record="x"), owners),
        ("a release with another's record", steady, steady.release(record=released.record()), owners),
        ("a release with the UIDs swapped", steady, steady.release(record=swapped(steady)), owners),
        ("another UID of the Deployment", steady, steady.release(uid="1"), owners),
        ("another Deployment", steady, steady.release(name="returned"), owners),
        (
            "another Deployment, with its UID",
            steady,
            steady.release(name="returned", uid=returned.deployment["uid"]),
            owners,
        ),
        ("a shorter name", steady, steady.release(name="stead"), owners),
        ("another kind", steady, steady.release(kind="StatefulSet"), owners),
        ("another group", steady, steady.release(apiVersion="argoproj.io/v1alpha1"), owners),
        ("another version", steady, steady.release(apiVersion="apps/v1beta1"), owners),
        ("a release that blocks deletion", steady, steady.release(blockOwnerDeletion=True), blocked),
        ("a return to another ReplicaSet", released, released.give_back(name=rs["name"], uid=rs["uid"]), owners),
        ("a return to another UID", released, released.give_back(uid="1"), owners),
        ("a return to another kind", released, released.give_back(kind="DaemonSet"), owners),
        ("a return that blocks deletion", released, released.give_back(blockOwnerDeletion=True), blocked),
        (
            "a return without a record",
            released,
            released.owned(*others, released.replica_set, annotations={MOVE: None}),
            owners,
        ),
        (
            "a return with another record",
            released,
            released.owned(*others, released.replica_set, annotations={MOVE: released.record(cause="x")}),
            owners,
        ),
        # The remaining metadata, and the spec.
        ("a finalizer", steady, meta(finalizers=["a.b/c"]), rest),
        ("another generateName", steady, meta(generateName="x-"), rest),
        ("an image", steady, {"spec": image}, spec),
        ("an image beside a release", steady, steady.release() | {"spec": image}, spec),
        ("a toleration", steady, {"spec": {"tolerations": longer}}, spec),
        ("a deadline", steady, {"spec": {"activeDeadlineSeconds": 1}}, spec),
    ]
    bare = Pod(f"{PODS}/bare", "bare", cluster.admin.get(f"{PODS}/bare")["metadata"]["uid"], rs, deployment, [])
    table += [
        ("a ReplicaSet for a bare pod", bare, bare.give_back(), owners),
        ("a Deployment for a bare pod", bare, bare.release(), owners),
        ("a record of a bare pod", bare, meta(annotations=move), notes),
    ]
    found = {name: cluster.operator.patch(pod.path, patch) for name, pod, patch, _ in table}
    check({name: words for name, _, _, words in table}, found)


def test_no_pod_is_deleted_or_evicted_but_by_its_uid_and_with_a_grace_period(cluster: Cluster) -> None:
    operator, pod = cluster.operator, cluster.released
    bare = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name, "namespace": SPACE}}
    mine, path = {"uid": pod.uid}, f"{pod.path}/eviction"
    by_uid, grace = "only by its UID", "only with a grace period"
    table = [
        ("deleted by its name", operator.delete(pod.path), by_uid),
        ("deleted at once", operator.delete(pod.path, preconditions=mine, gracePeriodSeconds=0), grace),
        ("evicted by its name", operator.create(path, bare), by_uid),
        ("evicted by no UID", operator.create(path, eviction(pod, preconditions={})), by_uid),
        ("evicted at once", operator.create(path, eviction(pod, gracePeriodSeconds=0)), grace),
        ("deleted at once by others", cluster.admin.delete(pod.path, gracePeriodSeconds=0), ""),
        ("evicted by others", cluster.admin.create(path, bare), ""),
        ("deleted with all others", operator.delete(PODS), "cannot deletecollection"),
    ]
    check({name: words for name, _, words in table}, {name: said for name, said, _ in table})


# -- the operator's own identity on nodes ----------------------------------------------------------------------------

OURS = [
    {"key": "rescheduler.dev/drain", "effect": "PreferNoSchedule"},
    {"key": "rescheduler.dev/pool", "value": "red", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoSchedule"},
]
THEIRS = [
    {"key": "theirs", "value": "x", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"},
    {"key": "rescheduler.dev/pool", "effect": "PreferNoSchedule"},
]


@pytest.fixture
def tainted(cluster: Cluster) -> Iterator[list[RawObject]]:
    """Return all taints of node n1, which has taints of others, one with a key of the operator."""
    assert cluster.admin.patch(NODE, {"spec": {"taints": THEIRS}}, dry=False) == ""
    yield cluster.admin.get(NODE)["spec"]["taints"]
    cluster.admin.patch(NODE, {"spec": {"taints": None}}, dry=False)


@pytest.mark.every_version("limits of writes")
def test_on_a_node_the_operator_may_write_what_the_reference_names_and_nothing_else(
    cluster: Cluster, tainted: list[RawObject]
) -> None:
    def meta(**fields: Any) -> dict[str, Any]:
        return {"metadata": fields}

    def taints(*more: RawObject, kept: list[RawObject] = tainted) -> dict[str, Any]:
        return {"spec": {"taints": [*kept, *more]}}

    rest, spec, add, remove = (
        "neither finalizers nor owners",
        "nothing in a node's spec",
        "add no taint",
        "remove no taint",
    )
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}
    table: list[tuple[str, RawObject, str]] = [
        ("cordon", {"spec": {"unschedulable": True}}, ""),
        ("uncordon", {"spec": {"unschedulable": None}}, ""),
        ("all taints of ours", taints(*OURS), ""),
        ("taints in another order", taints(kept=tainted[::-1]), ""),
        ("NoExecute for a drain", taints({**OURS[0], "effect": "NoExecute"}), add),
        ("NoExecute for a pool", taints({**OURS[1], "effect": "NoExecute"}), add),
        ("NoExecute out of service", taints({**OURS[2], "effect": "NoExecute"}), add),
        ("NoSchedule for a drain", taints({**OURS[0], "effect": "NoSchedule"}), add),
        ("a taint of others", taints({"key": "a", "effect": "NoSchedule"}), add),
        ("a taint of Kubernetes", taints({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}), add),
        ("their taint with another value", taints(kept=[{**tainted[0], "value": "y"}, *tainted[1:]]), add),
        ("their taint with another time", taints(kept=[{**tainted[0], "timeAdded": None}, *tainted[1:]]), add),
        ("one taint less", taints(kept=tainted[1:]), remove),
        ("their taint with a key of ours less", taints(kept=tainted[:1]), remove),
        ("no taints", {"spec": {"taints": None}}, remove),
        (
            "held back from autoscalers",
            meta(annotations={"cluster-autoscaler.kubernetes.io/scale-down-disabled": "true"}),
            "",
        ),
        ("held back from Karpenter", meta(annotations={"karpenter.sh/do-not-disrupt": "true"}), ""),
        ("a cancelled drain", meta(annotations={CANCELLED: "{}"}), ""),
        ("no load balancers", meta(labels={"node.kubernetes.io/exclude-from-external-load-balancers": "true"}), ""),
        ("a pool", meta(labels={"rescheduler.node-restriction.kubernetes.io/pool": "red"}), ""),
        ("a foreign label", meta(labels={"x": "y"}), "change no label"),
        ("a label of Kubernetes less", meta(labels={"kubernetes.io/os": None}), "change no label"),
        ("a role", meta(labels={"node-role.kubernetes.io/control-plane": ""}), "change no label"),
        ("a foreign annotation", meta(annotations={"x": "y"}), "change no annotation"),
        ("a request for maintenance", meta(annotations={MAINTENANCE: "y"}), "change no annotation"),
        ("an attestation", meta(annotations={FENCED: "y"}), "change no annotation"),
        ("a finalizer", meta(finalizers=["a.b/c"]), rest),
        ("an owner", meta(ownerReferences=[owner]), "can't delete"),  # the plugin answers before the policy
        ("a provider's ID", {"spec": {"providerID": "x"}}, spec),
        ("addresses for pods", {"spec": {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24"]}}, spec),
    ]
    found = {name: cluster.operator.patch(NODE, patch) for name, patch, _ in table}
    check({name: words for name, _, words in table}, found)


def test_in_a_nodes_status_the_operator_may_write_its_conditions_and_nothing_else(cluster: Cluster) -> None:
    def condition(type_: str, **fields: str) -> dict[str, Any]:
        return {"status": {"conditions": [{"type": type_, **fields}]}}

    def meta(**fields: Any) -> dict[str, Any]:
        return {"metadata": fields}

    conditions, status, metadata = "set no node condition", "nothing in a node's status", "not change a node's metadata"
    table: list[tuple[str, RawObject, str]] = [
        ("Drained", condition("Drained", status="True"), ""),
        ("DrainInProgress", condition("DrainInProgress", status="True"), ""),
        ("MaintenanceInProgress", condition("MaintenanceInProgress", status="True"), ""),
        ("not Drained any more", condition("Drained", **{"$patch": "delete"}), ""),
        ("Ready", condition("Ready", status="False"), conditions),
        ("Ready, of another time", condition("Ready", lastHeartbeatTime="2026-01-01T00:00:00Z"), conditions),
        ("no Ready", condition("Ready", **{"$patch": "delete"}), conditions),
        ("a condition of others", condition("FanBroken", status="True"), conditions),
        ("capacity", {"status": {"capacity": {"cpu": "1"}}}, status),
        ("allocatable", {"status": {"allocatable": {"cpu": "1"}}}, status),
        ("addresses", {"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]}}, status),
        ("another boot", {"status": {"nodeInfo": {"bootID": "x"}}}, status),
        ("images", {"status": {"images": [{"names": ["x"]}]}}, status),
        ("volumes in use", {"status": {"volumesInUse": ["x"]}}, status),
        ("volumes attached", {"status": {"volumesAttached": [{"name": "x", "devicePath": ""}]}}, status),
        ("the kubelet's port", {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}, status),
        ("a phase", {"status": {"phase": "Terminated"}}, status),
        ("a label", meta(labels={"x": "y"}), metadata),
        ("a label of a pool", meta(labels={"rescheduler.node-restriction.kubernetes.io/pool": "red"}), metadata),
        ("an annotation", meta(annotations={"x": "y"}), metadata),
        ("a finalizer", meta(finalizers=["a.b/c"]), metadata),
    ]
    found = {name: cluster.operator.patch(f"{NODE}/status", patch, kind="strategic") for name, patch, _ in table}
    check({name: words for name, _, words in table}, found)


def test_in_a_pool_the_operator_may_write_one_label_in_whichever_version(cluster: Cluster) -> None:
    cluster.plane.apply(workloads.pool("red", namespaces=["x"], nodeSelector={"matchLabels": {"disk": "ssd"}}))
    label, metadata = "rescheduler.dev/admission-skip", "nothing else in a pool's metadata"
    table: list[tuple[str, RawObject, str]] = [
        ("its label", {"metadata": {"labels": {label: ""}}}, ""),
        ("another label", {"metadata": {"labels": {"x": "y"}}}, f"no label of a pool except {label}"),
        ("an annotation", {"metadata": {"annotations": {"x": "y"}}}, metadata),
        ("the spec", {"spec": {"mode": "Audit"}}, "not change a pool's spec"),
    ]
    for version in SERVED_VERSIONS:
        path = f"/apis/{GROUP}/{version}/namespacepools/red"
        found = {name: cluster.operator.patch(path, patch) for name, patch, _ in table}
        check({name: words for name, _, words in table}, found)
    cluster.plane.kubectl("delete", "nsp", "red")


# -- everybody else --------------------------------------------------------------------------------------------------


@pytest.mark.every_version("limits of writes")
def test_nobody_else_writes_the_record_of_a_move(cluster: Cluster) -> None:
    """The administrator stands for everybody: it has every right, and only admission refuses."""
    admin, steady, released = cluster.admin, cluster.steady, cluster.released
    note: RawObject = {"metadata": {"annotations": {MOVE: steady.record()}}}
    gone: RawObject = {"metadata": {"annotations": {MOVE: None}}}
    copied = workloads.bare_pod("copied", SPACE, annotations={MOVE: steady.record()})
    plain = workloads.bare_pod("plain", SPACE)
    only, traced = "only Rescheduler writes the annotation rescheduler.dev/move", "is its record of the move"
    target = {"target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}}
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "plain", "annotations": {MOVE: "{}"}},
    } | target
    unplaced = workloads.bare_pod("unplaced", SPACE, schedulerName="nobody")
    assert admin.create(PODS, unplaced, dry=False) == ""
    bound = {**binding, "metadata": {"name": "unplaced"}}
    noted = {**binding, "metadata": {"name": "unplaced", "annotations": {MOVE: "{}"}}}
    by_hand = released.give_back()
    by_hand["metadata"]["annotations"] |= {MOVE: None}
    table: list[tuple[str, str, str]] = [
        ("on a new pod", admin.create(PODS, copied), only),
        ("on a pod", admin.patch(steady.path, note), only),
        ("on a pod, by its status", admin.patch(f"{steady.path}/status", note), only),
        ("changed", admin.patch(released.path, note), only),
        ("changed, by the status", admin.patch(f"{released.path}/status", note), only),
        ("by a binding", admin.create(f"{PODS}/unplaced/binding", noted), only),
        ("by a binding, the older way", admin.create(f"/api/v1/namespaces/{SPACE}/bindings", noted), only),
        ("removed", admin.patch(released.path, gone), traced),
        ("removed, by the status", admin.patch(f"{released.path}/status", gone), traced),
        # Writes that do not concern a record.
        ("a new pod", admin.create(PODS, plain), ""),
        ("a binding", admin.create(f"{PODS}/unplaced/binding", bound), ""),
        ("another annotation", admin.patch(released.path, {"metadata": {"annotations": {"x": "y"}}}), ""),
        ("a status", admin.patch(f"{released.path}/status", {"status": {"message": "x"}}), ""),
        ("removed where it is no record any more", admin.patch(cluster.returned.path, gone), ""),
        ("returned by hand", admin.patch(released.path, by_hand), ""),
        ("deleted", admin.delete(released.path), ""),
    ]
    check({name: words for name, _, words in table}, {name: said for name, said, _ in table})
    with unguarded(cluster.plane):
        assert admin.patch(steady.path, note) == ""


def test_a_workload_whose_template_carries_a_record_says_so(cluster: Cluster) -> None:
    """A pod copied from a released one: the controller's Event names the annotation and the fix."""
    cluster.plane.apply(workloads.deployment("copy", 1, SPACE, annotations={MOVE: "{}"}))

    def refused() -> list[str]:
        found = cluster.plane.get("deployment", "copy", "-n", SPACE).get("status", {}).get("conditions", [])
        return [c["message"] for c in found if c["type"] == "ReplicaFailure"]

    (message,) = until(refused, "the Deployment to say why it has no pods")
    assert "rescheduler.dev/move" in message
    assert "the template of the pod" in message
    cluster.plane.kubectl("delete", "deployment", "copy", "-n", SPACE)


def test_a_nodes_own_identity_writes_nothing_of_ours_on_its_node(cluster: Cluster) -> None:
    def annotated(key: str, value: str | None = "x") -> dict[str, Any]:
        return {"metadata": {"annotations": {key: value}}}

    assert cluster.admin.patch(NODE, annotated(FENCED), dry=False) == ""
    own, only, plugin = "a node's own identity may write", "only Rescheduler writes", "is not allowed to modify labels"
    labelled = {"metadata": {"labels": {"rescheduler.dev/x": "y"}}}
    pool = {"metadata": {"labels": {"rescheduler.node-restriction.kubernetes.io/pool": "red"}}}
    # A kubelet registers its Node itself.
    new: RawObject = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "new", "labels": {"disk": "ssd"}}}
    asking = {**new, "metadata": {**new["metadata"], "annotations": {FENCED: "x"}}}
    admin = cluster.admin
    with Identity.of_node(cluster.plane, "n1") as kubelet, Identity.of_node(cluster.plane, "new") as newcomer:
        table: list[tuple[str, str, str]] = [
            *((key, kubelet.patch(NODE, annotated(key)), own) for key in (MAINTENANCE, CANCELLED, "rescheduler.dev/x")),
            ("an attestation", kubelet.patch(NODE, annotated(FENCED, "y")), own),
            ("an attestation, by the status", kubelet.patch(f"{NODE}/status", annotated(FENCED, "y")), own),
            ("no attestation", kubelet.patch(NODE, annotated(FENCED, None)), own),
            ("a label", kubelet.patch(NODE, labelled), own),
            ("a label of a pool", kubelet.patch(NODE, pool), plugin),
            ("registered with an annotation of ours", newcomer.create("/api/v1/nodes", asking), own),
            # Writes of kubelets, also on a Node with an annotation of the operator.
            ("registered", newcomer.create("/api/v1/nodes", new), ""),
            ("a foreign annotation", kubelet.patch(NODE, annotated("x")), ""),
            ("a foreign label", kubelet.patch(NODE, {"metadata": {"labels": {"disk": "ssd"}}}), ""),
            ("its status", kubelet.patch(f"{NODE}/status", {"status": {"nodeInfo": {"bootID": "x"}}}), ""),
            # Other users: everything except the operator's records.
            ("attested by a fencer", admin.patch(NODE, annotated(FENCED, "y")), ""),
            ("asked for by a person", admin.patch(NODE, annotated(MAINTENANCE)), ""),
            ("cancelled by a person", admin.patch(NODE, annotated(CANCELLED)), only),
            ("cancelled by the status", admin.patch(f"{NODE}/status", annotated(CANCELLED)), only),
        ]
        check({name: words for name, _, words in table}, {name: said for name, said, _ in table})
        assert cluster.operator.patch(NODE, annotated(CANCELLED, "{}"), dry=False) == ""
        assert "may write" in kubelet.patch(NODE, annotated(CANCELLED, None))
    assert admin.patch(NODE, annotated(CANCELLED, None)) == ""


def test_the_labels_that_a_kubelet_may_set_are_those_that_pools_do_not_trust(cluster: Cluster) -> None:
    keys = ["disk", "example.com/disk", "cloud.google.com/gke-nodepool", "kubernetes.io.example.com/x", "notk8s.io/x"]
    keys += ["node-restriction.kubernetes.io/x", "shop.node-restriction.kubernetes.io/x", "kops.k8s.io/instancegroup"]
    keys += [
        "node-role.kubernetes.io/worker",
        "node-role.kubernetes.io/control-plane",
        "kubernetes.io/role",
        "k8s.io/x",
    ]
    keys += [f"kubernetes.io/{name}" for name in ("hostname", "os", "arch", "metadata.name", "instance-type")]
    keys += [f"beta.kubernetes.io/{name}" for name in ("os", "arch", "instance-type", "x")]
    keys += [f"topology.kubernetes.io/{name}" for name in ("zone", "region", "rack")]
    keys += [f"failure-domain.beta.kubernetes.io/{name}" for name in ("zone", "region", "rack")]
    keys += [
        "node.kubernetes.io/instance-type",
        "node.kubernetes.io/x",
        "kubelet.kubernetes.io/x",
        "x.kubelet.kubernetes.io/x",
    ]
    with Identity.of_node(cluster.plane, "n1") as kubelet:
        said = {key: kubelet.patch(NODE, {"metadata": {"labels": {key: "changed"}}}) for key in keys}
    check({key: "" if kubelet_may_set(key) else "is not allowed to modify labels" for key in keys}, said)
