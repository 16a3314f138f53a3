"""A large cluster: nodes, pods, their owners and budgets, written to etcd, and the kubelets that only renew Leases.

The API server reads JSON from etcd as well as protobuf. So 100,000 Running pods need a minute and no kubelet. Only the
nodes that are drained, and the spare nodes that take the new pods, have a simulated kubelet.
"""

import base64
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from harness import ControlPlane, processes
from harness.machines import MAIN, RACK

REPLICAS = 10
PODS_IN_NAMESPACE = 200
_SPARE_PODS = 250
_LEASE_INTERVAL, _STATUS_INTERVAL = 10.0, 300.0  # seconds, as of a kubelet
_BATCH = 200  # objects of one transaction
_CREATED = "2026-11-01T00:00:00Z"
CONTROLLERS = "deployment-controller,replicaset-controller,disruption-controller,serviceaccount-controller"
ETCD = {"max-txn-ops": "1000", "max-request-bytes": "67108864", "quota-backend-bytes": str(8 << 30)}


class Etcd:
    """Write objects to the etcd of a control plane through its JSON gateway."""

    def __init__(self, plane: ControlPlane) -> None:
        (pid,) = [p for p in processes.of(plane.workdir) if processes.program(p) == "etcd"]
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        self._url = next(a.split("=", 1)[1] for a in arguments if a.startswith("--listen-client-urls=")).split(",")[0]
        self._session = requests.Session()
        self._session.trust_env = False

    def put(self, objects: Iterable[tuple[str, str]]) -> None:
        """Write pairs of key and JSON, each batch in one transaction."""
        batch: list[dict[str, Any]] = []
        for key, text in objects:
            pair = {"key": _encode(f"/registry/{key}"), "value": _encode(text)}
            batch.append({"requestPut": pair})
            if len(batch) == _BATCH:
                self._send(batch)
                batch = []
        if batch:
            self._send(batch)

    def _send(self, batch: list[dict[str, Any]]) -> None:
        self._session.post(f"{self._url}/v3/kv/txn", data=json.dumps({"success": batch}), timeout=60).raise_for_status()


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def now() -> str:
    """Return the time as the API writes it in a Lease."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _meta(name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{more.get('kind', '')}/{namespace}/{name}"))
    place = {"namespace": namespace} if namespace else {}
    more.pop("kind", None)
    return {"name": name, **place, "uid": uid, "creationTimestamp": _CREATED, **more}


def _managed(manager: str, fields: Any, subresource: str = "") -> dict[str, Any]:
    entry = {"manager": manager, "operation": "Update", "apiVersion": "v1", "time": _CREATED}
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields}
    return entry | ({"subresource": subresource} if subresource else {})


def _fields(value: Any) -> Any:
    """Return the fields of a value as `managedFields` names them."""
    return {f"f:{key}": _fields(inner) for key, inner in value.items()} if isinstance(value, dict) else {}


class LargeCluster:
    """Nodes and pods of a large cluster.

    Attributes:
        nodes: number of nodes.
        pods: number of pods.
        drained: names of the nodes with a simulated kubelet that measures drain.
        spare: names of the nodes that take the pods of the drained ones.
        static: names of the other nodes, which are full.
        renewals: Leases that the static nodes have renewed.
        reports: statuses that the static nodes have written.
    """

    def __init__(self, plane: ControlPlane, nodes: int, pods: int, drained: int) -> None:
        self._plane, self._etcd, self.nodes, self.pods = plane, Etcd(plane), nodes, pods
        self.namespaces = max(1, pods // PODS_IN_NAMESPACE)
        self.drained = [f"drain-{index:04}" for index in range(drained)]
        full = nodes
        while True:  # the spare nodes take the pods of the drained nodes, and belong to the nodes
            spare = -(-drained * -(-pods // full) // _SPARE_PODS) + 2 if drained else 0
            if full + spare <= nodes:
                break
            full = nodes - spare
        self.spare = [f"spare-{index:04}" for index in range(spare)]
        self.static = [f"node-{index:04}" for index in range(full - drained)]
        self._room = Counter(self._place(number) for number in range(pods))
        self._stop = threading.Event()
        self.renewals, self.reports = 0, 0

    def write(self, *, budgets: bool = True) -> None:
        """Write the objects, and start the kubelets."""
        self._etcd.put(self._node_objects())
        self._etcd.put(self._namespace_objects())
        self._etcd.put(self._pod_objects())
        self._etcd.put(self._owners(budgets=budgets))  # last: their controllers would create missing pods
        if self.drained:
            self._plane._rack(MAIN)  # noqa: SLF001 - its KWOK process has started, unless nothing needed it
        for target in (self._renew, self._report):
            threading.Thread(target=target, daemon=True).start()

    def stop(self) -> None:
        """Stop the kubelets of the static nodes."""
        self._stop.set()

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _node_objects(self) -> Iterator[tuple[str, str]]:
        for name in (*self.drained, *self.static, *self.spare):
            yield f"minions/{name}", self._node(name)
        yield from map(_lease, self.static)  # KWOK would take over a Lease only after it has expired

    def _node(self, name: str) -> str:
        room = str(_SPARE_PODS if name.startswith("spare") else self._room[name])
        size = {"cpu": "32", "memory": "128Gi", "ephemeral-storage": "400Gi", "pods": room}
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        labels |= {"node.kubernetes.io/instance-type": "m6i.8xlarge", "topology.kubernetes.io/region": "region-1"}
        labels |= {"topology.kubernetes.io/zone": f"zone-{sum(name.encode()) % 3}"}
        if not name.startswith("node-"):
            labels[RACK] = MAIN
        beat = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [
            {"type": kind, "status": status, "reason": reason, "message": f"kubelet says {reason}"}
            | {"lastHeartbeatTime": beat, "lastTransitionTime": _CREATED}
            for kind, status, reason in (
                ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                ("PIDPressure", "False", "KubeletHasSufficientPID"),
                ("Ready", "True", "KubeletReady"),
            )
        ]
        images = [
            {
                "names": [
                    f"registry.example.com/team/image-{i}@sha256:{i:064x}",
                    f"registry.example.com/team/image-{i}:v1",
                ],
                "sizeBytes": 100_000_000 + i,
            }
            for i in range(50)
        ]
        status = {
            "capacity": size,
            "allocatable": size,
            "conditions": conditions,
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"bootID": name, "kubeletVersion": "v1.37.2", "osImage": "Linux", "architecture": "amd64"},
            "images": images,
        }
        annotations = {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"}
        managed = [
            _managed("kubelet", {"f:metadata": _fields({"annotations": annotations, "labels": labels})}),
            _managed("kubelet", {"f:status": _fields({**status, "images": 0})}, "status"),
        ]
        meta = _meta(name, labels=labels, annotations=annotations, managedFields=managed)
        body = {"kind": "Node", "apiVersion": "v1", "metadata": meta, "spec": {"podCIDR": "10.0.0.0/24"}}
        return json.dumps(body | {"status": status})

    def _renew(self) -> None:
        """Renew the Leases of the static nodes, each every 10 s."""
        for names in _in_turn(self.static, _LEASE_INTERVAL, self._stop):
            self._etcd.put(map(_lease, names))
            self.renewals += len(names)

    def _report(self) -> None:
        """Write the status of the static nodes, each every 5 min: only the times of the heartbeats change."""
        for names in _in_turn(self.static, _STATUS_INTERVAL, self._stop):
            self._etcd.put((f"minions/{name}", self._node(name)) for name in names)
            self.reports += len(names)

    # -- pods ---------------------------------------------------------------------------------------------------------

    def _apps(self) -> Iterator[tuple[str, str, int]]:
        """Yield namespace, name and number of the first pod of each app."""
        for first in range(0, self.pods, REPLICAS):
            yield f"team-{first // REPLICAS % self.namespaces:04}", f"app-{first // REPLICAS:05}", first

    def _namespace_objects(self) -> Iterator[tuple[str, str]]:
        for index in range(self.namespaces):
            name = f"team-{index:04}"
            meta = _meta(name, kind="Namespace", labels={"kubernetes.io/metadata.name": name})
            body = {"kind": "Namespace", "apiVersion": "v1", "metadata": meta}
            yield (
                f"namespaces/{name}",
                json.dumps(body | {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
            )
            account = {
                "kind": "ServiceAccount",
                "apiVersion": "v1",
                "metadata": _meta("default", name, kind="ServiceAccount"),
            }
            yield f"serviceaccounts/{name}/default", json.dumps(account)

    def _owners(self, *, budgets: bool) -> Iterator[tuple[str, str]]:
        for space, app, first in self._apps():
            replicas = min(REPLICAS, self.pods - first)
            yield from _deployment(space, app, replicas)
            if budgets:
                yield _budget(space, app, replicas)

    def _place(self, number: int) -> str:
        """Return the node of a pod; an app has few pods on the nodes that are drained together."""
        place = number * 7919 % (len(self.drained) + len(self.static))
        return self.drained[place] if place < len(self.drained) else self.static[place - len(self.drained)]

    def _pod_objects(self) -> Iterator[tuple[str, str]]:
        for space, app, first in self._apps():
            text = json.dumps(_pod(space, app))
            for number in range(first, min(first + REPLICAS, self.pods)):
                node = self._place(number)
                uid = str(uuid.UUID(int=number + (4 << 76) + (8 << 60)))
                name = f"{app}-abcde-{number:06}"
                yield f"pods/{space}/{name}", text.replace("NAME", name).replace("UID", uid).replace("NODE", node)


def _in_turn(names: list[str], interval: float, stop: threading.Event) -> Iterator[list[str]]:
    """Yield the names that are due, each once in an interval."""
    began, sent = time.monotonic(), 0
    while names and not stop.wait(0.1):
        due = int((time.monotonic() - began) * len(names) / interval)
        if due > sent:
            yield [names[index % len(names)] for index in range(sent, due)]
            sent = due


def _lease(name: str) -> tuple[str, str]:
    meta = _meta(name, "kube-node-lease", kind="Lease")
    meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": _meta(name)["uid"]}]
    spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()}
    meta["managedFields"] = [_managed("kubelet", {"f:spec": _fields(spec)})]
    body = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": meta, "spec": spec}
    return f"leases/kube-node-lease/{name}", json.dumps(body)


def _template(app: str) -> dict[str, Any]:
    container = {
        "name": "app",
        "image": "registry.example.com/team/image-1:v1",
        "env": [{"name": f"SETTING_{index}", "value": f"value-{index}"} for index in range(8)],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
        "livenessProbe": {"httpGet": {"path": "/alive", "port": 8080}},
    }
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def _deployment(space: str, app: str, replicas: int) -> Iterator[tuple[str, str]]:
    """Yield a Deployment and its ReplicaSet, with the status that their controllers would write."""
    counts: dict[str, Any] = {
        "observedGeneration": 1,
        "replicas": replicas,
        "readyReplicas": replicas,
        "availableReplicas": replicas,
    }
    counts["terminatingReplicas"] = 0
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": _template(app)}
    meta = _meta(app, space, kind="Deployment", generation=1, labels={"app": app})
    conditions = [
        {"type": kind, "status": "True", "reason": reason, "message": reason}
        | {"lastUpdateTime": _CREATED, "lastTransitionTime": _CREATED}
        for kind, reason in (("Available", "MinimumReplicasAvailable"), ("Progressing", "NewReplicaSetAvailable"))
    ]
    body = {"kind": "Deployment", "apiVersion": "apps/v1", "spec": spec}
    body["metadata"] = meta | {"annotations": {"deployment.kubernetes.io/revision": "1"}}
    body["status"] = counts | {"updatedReplicas": replicas, "conditions": conditions}
    yield f"deployments/{space}/{app}", json.dumps(body)
    name, labels = f"{app}-abcde", {"app": app, "pod-template-hash": "abcde"}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": app, "uid": meta["uid"]}
    surge = replicas + -(-replicas // 4)
    annotations = {"deployment.kubernetes.io/revision": "1", "deployment.kubernetes.io/desired-replicas": str(replicas)}
    annotations["deployment.kubernetes.io/max-replicas"] = str(surge)
    meta = _meta(name, space, kind="ReplicaSet", generation=1, labels=labels, annotations=annotations)
    meta["ownerReferences"] = [owner | {"controller": True, "blockOwnerDeletion": True}]
    template = _template(app)
    template["metadata"] = {"labels": labels}
    body = {"kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": meta}
    body["spec"] = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    body["status"] = counts | {"fullyLabeledReplicas": replicas}
    yield f"replicasets/{space}/{name}", json.dumps(body)


def _budget(space: str, app: str, replicas: int) -> tuple[str, str]:
    room = 2
    status: dict[str, Any] = {"observedGeneration": 1, "disruptionsAllowed": room, "currentHealthy": replicas}
    status |= {"desiredHealthy": replicas - room, "expectedPods": replicas}
    status["conditions"] = [
        {"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": ""}
        | {"lastTransitionTime": _CREATED, "observedGeneration": 1}
    ]
    body = {"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "status": status}
    body["metadata"] = _meta(app, space, kind="PodDisruptionBudget", generation=1)
    body["spec"] = {"maxUnavailable": room, "selector": {"matchLabels": {"app": app}}}
    return f"poddisruptionbudgets/{space}/{app}", json.dumps(body)


def _pod(space: str, app: str) -> dict[str, Any]:
    """Return a Running pod of an app with NAME, UID and NODE to fill in."""
    template, owner = _template(app), f"{app}-abcde"
    uid = _meta(owner, space, kind="ReplicaSet")["uid"]
    labels = {"app": app, "pod-template-hash": "abcde"}
    token = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    authority = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    (container,) = template["spec"]["containers"]
    place = {"name": "kube-api-access", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    container["volumeMounts"] = [place]
    spec = template["spec"] | {
        "nodeName": "NODE",
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
        "securityContext": {},
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "tolerations": [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in ("not-ready", "unreachable")
        ],
        "volumes": [{"name": "kube-api-access", "projected": {"sources": [token, authority], "defaultMode": 420}}],
    }
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": _CREATED}
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    state = {
        "name": "app",
        "image": container["image"],
        "imageID": f"registry.example.com/team/image-1@sha256:{1:064x}",
    }
    state |= {"ready": True, "restartCount": 0, "started": True, "containerID": f"containerd://{2:064x}"}
    state["state"] = {"running": {"startedAt": _CREATED}}
    status = {"phase": "Running", "conditions": conditions, "containerStatuses": [state], "qosClass": "Burstable"}
    status |= {"hostIP": "10.0.0.1", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}], "startTime": _CREATED}
    controller = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": uid}
    owners = [controller | {"controller": True, "blockOwnerDeletion": True}]
    managed = [
        _managed("kube-controller-manager", {"f:metadata": _fields({"labels": labels}), "f:spec": _fields(spec)}),
        _managed("kubelet", {"f:status": _fields(status)}, "status"),
    ]
    meta: dict[str, Any] = {
        "name": "NAME",
        "generateName": f"{owner}-",
        "namespace": space,
        "uid": "UID",
        "labels": labels,
    }
    meta |= {"creationTimestamp": _CREATED, "ownerReferences": owners, "managedFields": managed}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": spec, "status": status}
