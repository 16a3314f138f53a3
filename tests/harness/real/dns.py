"""CoreDNS as the DNS of the cluster, and a client of it."""

import subprocess
import sys
from typing import Any

from harness import workloads
from harness.clients import Clients
from harness.real.images import COREDNS
from harness.real.node import DNS_ADDRESS

NAMESPACE = "kube-system"
_COREFILE = """.:1053 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa
    cache 30
    reload
}
"""


def install(plane: Clients) -> None:
    """Install CoreDNS with two replicas, and wait until it is Ready."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": NAMESPACE}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "coredns", "namespace": NAMESPACE}}
    plane.apply(account, *_rights(), config | {"data": {"Corefile": _COREFILE}}, _deployment(), _service())
    plane.kubectl("rollout", "status", "deploy/coredns", "-n", NAMESPACE, "--timeout=90s")


def _rights() -> tuple[dict[str, Any], dict[str, Any]]:
    role: dict[str, Any] = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    role |= {"metadata": {"name": "coredns"}}
    role["rules"] = [
        {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    subject = {"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}
    binding = {**role, "kind": "ClusterRoleBinding", "subjects": [subject]}
    del binding["rules"]
    binding["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"}
    return role, binding


def _deployment() -> dict[str, Any]:
    container = {
        "name": "coredns",
        "image": COREDNS,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    volumes = [{"name": "config", "configMap": {"name": "coredns"}}]
    return workloads.deployment(
        "coredns", 2, NAMESPACE, grace=30, containers=[container], volumes=volumes, serviceAccountName="coredns",
        dnsPolicy="Default",
    )  # fmt: skip


def _service() -> dict[str, Any]:
    made = workloads.service("coredns", NAMESPACE)
    made["metadata"]["name"] = "kube-dns"
    made["spec"]["clusterIP"] = DNS_ADDRESS
    made["spec"]["ports"] = [{"name": "dns", "port": 53, "targetPort": 1053, "protocol": "UDP"}]
    return made


_QUERY = """
import socket, sys
name = b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[1].split("."))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(2)
    client.sendto(b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + name + b"\\0\\0\\1\\0\\1", (sys.argv[2], 53))
    answer = client.recv(512)
    print(socket.inet_ntoa(answer[-4:]) if answer[3] & 15 == 0 and answer[7] else "")
"""


def resolve(network: list[str], name: str) -> str:
    """Return the address of a name, as a node resolves it through the Service; empty if there is no answer."""
    command = [*network, sys.executable, "-S", "-c", _QUERY, name, DNS_ADDRESS]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
