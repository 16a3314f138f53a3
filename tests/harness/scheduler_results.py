"""Ask the real scheduler which pods of a random cluster it can place."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from harness.clients import ControlPlaneError
from harness.controlplane import ControlPlane
from harness.random_clusters import PRIORITIES, SPACES, RandomCluster
from harness.waiting import until
from rescheduler.core.model.raw import RawObject

_WHOLE = {"Node": "/api/v1/nodes", "PersistentVolume": "/api/v1/persistentvolumes"}
_SPACED = {"Pod": "pods", "PersistentVolumeClaim": "persistentvolumeclaims"}
_PENDING = re.compile(r'^scheduler_pending_pods\{queue="(\w+)"\} (\S+)$', re.MULTILINE)
_WRITERS = 8


class RealScheduler:
    """A control plane whose nodes no kubelet serves: a pod need not run to be scheduled."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane, self._pool = plane, ThreadPoolExecutor(_WRITERS)
        self._session = requests.Session()
        self._session.cert = (str(plane.pki / "admin.crt"), str(plane.pki / "admin.key"))
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=_WRITERS))
        self._scheduler = f"https://127.0.0.1:{_port(plane)}/metrics"
        plane.apply(*_fixtures())
        until(self._accounts, "the namespaces' ServiceAccounts")

    def _accounts(self) -> bool:
        names = self._plane.kubectl("get", "sa", "-A", "-o", "jsonpath={.items[*].metadata.namespace}").split()
        return set(SPACES) <= set(names)

    def create_cluster(self, random_cluster: RandomCluster) -> None:
        """Create the cluster, without the displaced pods."""
        self._create(random_cluster.nodes)
        volumes = [body for body in random_cluster.volumes if body["kind"] == "PersistentVolume"]
        self._create(volumes)
        # A claim that the scheduler sees before its volume would count as lost.
        until(self._available, "the volumes to be Available", every=0.02)
        self._create(body for body in random_cluster.volumes if body not in volumes)
        self._create(random_cluster.staying)
        until(self._untainted, "the nodes to count as ready")

    def _available(self) -> bool:
        volumes = self._get(_WHOLE["PersistentVolume"]).json()["items"]
        return all(volume["status"].get("phase") in ("Available", "Bound") for volume in volumes)

    def _untainted(self) -> bool:
        nodes = self._get(_WHOLE["Node"]).json()["items"]
        return "node.kubernetes.io/not-ready" not in [t["key"] for n in nodes for t in n["spec"].get("taints", ())]

    def schedule(self, pods: Sequence[RawObject], *, asked: int = 0) -> dict[str, str]:
        """Create pods in turn; return the reason why each has no node, empty if it has one, after all decisions.

        `asked`: number of these pods that a call before has created.
        """
        for pod in pods[asked:]:
            self._post(_free(pod))
        names = {pod["metadata"]["name"] for pod in pods}
        what = f"{len(names)} pods to be placed or refused"
        return until(lambda: self._decided(names), what, every=0.05) if names else {}

    def _decided(self, names: set[str]) -> dict[str, str]:
        """Return the result of each pod once the scheduler has tried all of them; empty before."""
        queues = {name: float(count) for name, count in _PENDING.findall(self._get(self._scheduler).text)}
        if queues["active"] or queues["backoff"]:
            return {}
        found = [pod for space in SPACES for pod in self._get(f"/api/v1/namespaces/{space}/pods").json()["items"]]
        pending = [pod for pod in found if not pod["spec"].get("nodeName")]
        if len(pending) != queues["unschedulable"]:
            return {}
        return {pod["metadata"]["name"]: _refused(pod) for pod in found if pod["metadata"]["name"] in names}

    def clear(self) -> None:
        """Delete the whole cluster."""
        for space in SPACES:
            self._delete(f"/api/v1/namespaces/{space}/pods")
            self._delete(f"/api/v1/namespaces/{space}/persistentvolumeclaims")
        for path in _WHOLE.values():
            self._delete(path)
        until(self._is_clear, "the cluster to be empty")

    def _is_clear(self) -> bool:
        paths = [_WHOLE["Node"], *(f"/api/v1/namespaces/{space}/pods" for space in SPACES)]
        counts = Counter(path for path in paths for _ in self._get(path).json()["items"])
        return not counts and not re.search(
            r"^scheduler_pending_pods\{.*\} [1-9]", self._get(self._scheduler).text, re.MULTILINE
        )

    # -- requests -----------------------------------------------------------------------------------------------------

    def _create(self, objects: Iterable[RawObject]) -> None:
        list(self._pool.map(self._post, objects))

    def _post(self, body: RawObject) -> None:
        kind, space = body["kind"], body["metadata"].get("namespace", "")
        path = _WHOLE.get(kind) or f"/api/v1/namespaces/{space}/{_SPACED[kind]}"
        answer = self._session.post(self._plane.server + path, json=body, timeout=30, verify=self._verify)
        if not answer.ok:
            raise ControlPlaneError(f"{body['metadata']['name']}: {answer.text}: {json.dumps(body)}")

    def _get(self, path: str) -> requests.Response:
        local = path.startswith("https://")
        url = path if local else self._plane.server + path
        return self._session.get(url, timeout=30, verify=False if local else self._verify)

    def _delete(self, path: str) -> None:
        body = {"gracePeriodSeconds": 0}
        self._session.delete(self._plane.server + path, json=body, timeout=30, verify=self._verify)

    @property
    def _verify(self) -> str:
        return str(self._plane.pki / "ca.crt")


def _port(plane: ControlPlane) -> str:
    """Return the address of the scheduler's metrics; nobody has signed its certificate."""
    for line in Path("/proc").glob("*/cmdline"):
        try:
            arguments = line.read_text().split("\0")
        except OSError:
            continue
        if arguments[0].endswith("kube-scheduler") and str(plane.workdir) in arguments[0]:
            return next(a.partition("=")[2] for a in arguments if a.startswith("--secure-port="))
    raise ControlPlaneError("no scheduler runs")


def _fixtures() -> list[RawObject]:
    spaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name, labels in SPACES.items()
    ]
    classes = [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "preemptionPolicy": "Never",
        }
        for name, value in PRIORITIES.items()
        if value
    ]
    runtime = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "heavy"},
        "handler": "heavy",
        "overhead": {"podFixed": {"cpu": "100m", "memory": "64Mi"}},
    }
    return [*spaces, *classes, runtime]


def _refused(pod: RawObject) -> str:
    """Return the scheduler's message why the pod has no node; empty if it has one."""
    conditions = pod["status"].get("conditions", ())
    said = next((c.get("message") for c in conditions if c["type"] == "PodScheduled"), None)
    return "" if pod["spec"].get("nodeName") else said or "not said yet"


def _free(pod: RawObject) -> RawObject:
    """Return the pod without its node, as its owner would create it again."""
    spec = {name: value for name, value in pod["spec"].items() if name != "nodeName"}
    return {**pod, "spec": spec}
