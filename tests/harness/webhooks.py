"""Admission webhooks of other vendors: KubeVirt takes an eviction over, a policy denies it, a sidecar is injected."""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.controlplane import ControlPlane
from harness.waiting import until

Denial = tuple[int, str]
"""HTTP code and message."""
Patch = list[Mapping[str, Any]]
"""A JSON patch."""


@contextmanager
def admission(
    plane: ControlPlane,
    namespace: str,
    decide: Callable[[dict[str, Any]], Denial | Patch | None],
    *,
    resource: str,
    operations: Sequence[str],
    mutating: bool = False,
) -> Iterator[None]:
    """Call `decide` with the request of each AdmissionReview of these operations in the namespace.

    A Denial refuses the request, a Patch changes its object, and None allows it. The API server calls the webhook a
    moment later: callers wait for that.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
            answer = decide(request)
            if isinstance(answer, tuple):
                response |= {"allowed": False, "status": {"code": answer[0], "message": answer[1]}}
            elif answer:
                response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(answer).encode()).decode()}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: callers see each request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(plane.pki / "admin.crt", plane.pki / "admin.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    kind = f"{'Mutating' if mutating else 'Validating'}WebhookConfiguration"
    try:
        authority = base64.b64encode((plane.pki / "ca.crt").read_bytes()).decode()
        hook = {
            "name": f"{resource.replace('/', '-')}.example.com",
            "clientConfig": {"url": f"https://127.0.0.1:{server.server_port}/", "caBundle": authority},
            "rules": [
                {"apiGroups": [""], "apiVersions": ["*"], "resources": [resource], "operations": list(operations)}
            ],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
        }
        plane.apply(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": namespace},
                "webhooks": [hook],
            }
        )
        yield
    finally:
        plane.kubectl("delete", kind.lower(), namespace, "--ignore-not-found")
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def evictions(plane: ControlPlane, namespace: str, decide: Callable[[str], Denial | None]) -> Iterator[list[str]]:
    """Call `decide` with the pod's name for each eviction in the namespace; yield those names, in order.

    The namespace must have a pod: a dry run of its eviction shows when the API server calls the webhook.
    """
    asked: list[str] = []

    def heard(request: dict[str, Any]) -> Denial | None:
        asked.append(request["name"])
        return decide(request["name"])

    with admission(plane, namespace, heard, resource="pods/eviction", operations=["CREATE"]):
        pod = plane.get("pods", "-n", namespace)["items"][0]["metadata"]["name"]
        until(lambda: try_eviction(plane, namespace, pod) and asked, "the webhook to be called")
        asked.clear()
        yield asked


def try_eviction(plane: ControlPlane, namespace: str, pod: str) -> str:
    """Return the API server's answer to a dry run of an eviction."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction?dryRun=All"
    return plane.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body), check=False)
