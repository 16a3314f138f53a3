"""Requests: what is sent over plain HTTP, what a proxy of the environment serves, and retries."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rescheduler.cli.cluster_api import ClusterApi
from rescheduler.cli.connection import transport
from rescheduler.cli.connection.credentials import Credentials, credential_source
from rescheduler.cli.connection.kubeconfig import Section
from rescheduler.cli.connection.transport import Connection
from rescheduler.cli.errors import ApiUnavailableError, PluginError


class Server(http.server.ThreadingHTTPServer):
    """Answers with `answers` in turn, then with the last one. A list of bytes is a stream; None closes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = [(200, {}, b"{}")]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append({"path": self.path, "headers": self.headers})
        answers = self.server.answers
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


def connect(server: Server, path: str = "", **settings: Any) -> ClusterApi:
    address = {"server": f"http://127.0.0.1:{server.server_port}{path}"}
    return ClusterApi(Connection(Section(Path(), "c", address), lambda: Credentials("Bearer t"), **settings))


def test_over_plain_http_no_credentials_are_sent(server: Server) -> None:
    connect(server, "/prefix/", headers=[("Impersonate-Group", "a"), ("Impersonate-Group", "b")]).get("v1", "nodes/n")
    (seen,) = server.seen
    assert seen["path"] == "/prefix/api/v1/nodes/n"
    assert seen["headers"]["Authorization"] is None
    assert seen["headers"].get_all("Impersonate-Group") == ["a", "b"]


def test_a_busy_api_server_is_asked_again(server: Server) -> None:
    server.answers = [(429, {"Retry-After": "0"}, b"{}"), (200, {}, b'{"items": [{"a": 1}]}')]
    assert list(connect(server).list_items("apps/v1", "deployments", labelSelector="a=b")) == [{"a": 1}]
    assert [seen["path"] for seen in server.seen] == ["/apis/apps/v1/deployments?labelSelector=a%3Db&limit=500"] * 2


def test_a_watch_yields_each_line(server: Server) -> None:
    lines = b'{"type": "ADDED", "object": {"a": 1}}\n{"type": "MODIFIED", "object": {"a": 2}}\n'
    server.answers = [(200, {}, lines)]
    assert list(connect(server).watch("v1", "nodes", seconds=1)) == [("ADDED", {"a": 1}), ("MODIFIED", {"a": 2})]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((403, {}, b'{"message": "nodes is\\nforbidden"}'), PluginError, r"cannot read nodes/n: nodes is forbidden"),
        ((502, {}, b""), PluginError, r"cannot read nodes/n: Bad Gateway \(HTTP 502\)"),
        ((200, {}, b"<html>"), PluginError, "is not a Kubernetes API server"),
        ((200, {}, b"[1]"), PluginError, "is not a Kubernetes API server"),
        ((200, {"Content-Length": "9"}, b"{}"), ApiUnavailableError, "does not answer"),
        ((200, {"Content-Encoding": "gzip"}, b"{}"), PluginError, "failed"),
    ],
)
def test_a_failed_request_is_one_line(
    server: Server, answer: tuple[int, dict[str, str], bytes], kind: type[PluginError], words: str
) -> None:
    server.answers = [answer]
    with pytest.raises(kind, match=words) as caught:
        connect(server).get("v1", "nodes/n")
    assert "\n" not in caught.value.message


def test_a_certificate_that_cannot_be_loaded_is_named_with_its_source(tmp_path: Path) -> None:
    user = Section(tmp_path / "config", "users[u].user", {"client-certificate": "crt", "client-key": "crt"})
    (tmp_path / "crt").write_text("no certificate")
    cluster = Section(tmp_path / "config", "clusters[c].cluster", {"server": "https://127.0.0.1:1"})
    with pytest.raises(PluginError) as caught:
        ClusterApi(Connection(cluster, credential_source(user, cluster))).get("v1", "nodes/n")
    assert (
        f"users[u].user.client-certificate in the kubeconfig {tmp_path}/config cannot be used" in caught.value.message
    )


def test_a_time_limit_of_zero_is_none(server: Server) -> None:
    assert Connection(Section(Path(), "c", {"server": "x"}), Credentials, timeout=0)._timeout is None
    assert Connection(Section(Path(), "c", {"server": "x"}), Credentials)._timeout == 30


@pytest.mark.parametrize(
    ("host", "no_proxy", "bypassed"),
    [
        ("127.0.0.1", "", True),
        ("localhost", "", True),
        ("::1", "", True),
        ("10.1.2.3", "", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "a.example, 10.1.2.3", True),
        ("api.a.example", "a.example", True),
        ("api.a.example", ".a.example", True),
        ("api.a.example", "*.a.example:6443", True),
        ("apia.example", "a.example", False),
        ("api.a.example", "*", True),
    ],
)
def test_no_proxy_names_hosts_addresses_and_ranges(host: str, no_proxy: str, bypassed: bool) -> None:
    assert transport._bypasses_proxy(host, no_proxy) is bypassed
