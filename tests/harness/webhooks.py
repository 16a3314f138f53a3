"""An admission webhook for evictions of another vendor: KubeVirt takes an eviction over, a policy denies it."""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.controlplane import ControlPlane
from harness.waiting import until

Denial = tuple[int, str]
"""HTTP code and message."""


@contextmanager
def evictions(plane: ControlPlane, namespace: str, decide: Callable[[str], Denial | None]) -> Iterator[list[str]]:
    """Call `decide` with the pod's name for each eviction in the namespace; yield those names, in order.

    The namespace must have a pod: a dry run of its eviction shows when the API server calls the webhook.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            asked.append(request["name"])
            response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
            if denial := decide(request["name"]):
                response |= {"allowed": False, "status": {"code": denial[0], "message": denial[1]}}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: tests read the yielded names."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(plane.pki / "admin.crt", plane.pki / "admin.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        plane.apply(_configuration(plane, namespace, server.server_port))
        pod = plane.get("pods", "-n", namespace)["items"][0]["metadata"]["name"]
        until(lambda: _try(plane, namespace, pod) and asked, "the webhook to be called")
        asked.clear()
        yield asked
    finally:
        plane.kubectl("delete", "validatingwebhookconfiguration", namespace, "--ignore-not-found")
        server.shutdown()
        server.server_close()
        thread.join()


def _try(plane: ControlPlane, namespace: str, pod: str) -> str:
    """Return the API server's answer to a dry run of an eviction."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction?dryRun=All"
    return plane.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body), check=False)


def _configuration(plane: ControlPlane, namespace: str, port: int) -> dict[str, Any]:
    authority = base64.b64encode((plane.pki / "ca.crt").read_bytes()).decode()
    rule = {"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods/eviction"], "operations": ["CREATE"]}
    hook = {
        "name": "evictions.example.com",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/", "caBundle": authority},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [hook],
    }
