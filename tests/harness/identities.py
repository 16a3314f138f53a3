"""Single requests under one identity: kubectl reads an object before it patches it, which not every identity may do."""

import json
import subprocess
from pathlib import Path
from typing import Any, Self

import requests

from harness.clients import Clients

_PATCHES = {"merge": "application/merge-patch+json", "strategic": "application/strategic-merge-patch+json"}


class Identity:
    """An identity with a token, or with a client certificate and its key."""

    def __init__(self, plane: Clients, *, token: str = "", certificate: tuple[Path, Path] | None = None) -> None:
        self._server, self._authority = plane.server, str(plane.pki / "ca.crt")
        self._session = requests.Session()
        self._session.trust_env = False
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        if certificate:
            self._session.cert = (str(certificate[0]), str(certificate[1]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @classmethod
    def of_account(cls, plane: Clients, namespace: str, name: str) -> Self:
        """Return the identity of a ServiceAccount."""
        return cls(plane, token=plane.kubectl("create", "token", name, "-n", namespace).strip())

    @classmethod
    def of_admin(cls, plane: Clients) -> Self:
        """Return the identity of the administrator."""
        return cls(plane, certificate=(plane.pki / "admin.crt", plane.pki / "admin.key"))

    @classmethod
    def of_node(cls, plane: Clients, node: str) -> Self:
        """Return the identity of a kubelet, with a certificate of the cluster's CA.

        The user is `system:node:<node>` in the group `system:nodes`.
        """
        return cls(plane, certificate=client_certificate(plane, f"/O=system:nodes/CN=system:node:{node}"))

    def get(self, path: str) -> dict[str, Any]:
        """Read an object."""
        answer = self._session.get(self._server + path, verify=self._authority, timeout=30)
        answer.raise_for_status()
        return dict(answer.json())

    def patch(self, path: str, body: object, *, kind: str = "merge", dry: bool = True) -> str:
        """Patch an object, as a dry run by default; return the reason of the refusal, or an empty string."""
        return self._send("PATCH", path, body, _PATCHES[kind], dry=dry)

    def create(self, path: str, body: object, *, dry: bool = True) -> str:
        """Create an object in a collection; return as `patch` does."""
        return self._send("POST", path, body, "application/json", dry=dry)

    def delete(self, path: str, *, dry: bool = True, **options: Any) -> str:
        """Delete an object with these DeleteOptions; return as `patch` does."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options} | ({"dryRun": ["All"]} if dry else {})
        return self._send("DELETE", path, body, "application/json", dry=dry)

    def _send(self, method: str, path: str, body: object, kind: str, *, dry: bool) -> str:
        answer = self._session.request(
            method,
            self._server + path,
            params={"dryRun": "All"} if dry else {},  # a DELETE with a body ignores the query; its body has dryRun
            data=json.dumps(body),
            headers={"Content-Type": kind},
            verify=self._authority,
            timeout=30,
        )
        return "" if answer.ok else str(answer.json()["message"])


def client_certificate(plane: Clients, subject: str) -> tuple[Path, Path]:
    """Return a certificate of the cluster's CA for a subject such as `/O=group/CN=user`, and its key."""
    name = subject.rsplit("=", 1)[1].replace(":", "-")
    key, request, certificate = (plane.workdir / f"{name}.{end}" for end in ("key", "csr", "crt"))
    if certificate.exists():
        return certificate, key
    _openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", key, "-out", request)
    authority = ("-CA", plane.pki / "ca.crt", "-CAkey", plane.pki / "ca.key", "-set_serial", "1")
    _openssl("x509", "-req", "-in", request, *authority, "-days", "1", "-out", certificate)
    return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
