"""Connections: CA and credentials that change while the process runs, for the client and for Kopf."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client import Configuration

from rescheduler.kube import connections
from rescheduler.kube.client import ApiError, Client, UnreachableError
from rescheduler.kube.connections import ConfigError, ConnectionConfig, load_config
from unit.fakes import FakeApiServer


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_FILE_CHECK_INTERVAL", 0.0)


class Tokens:
    """Source of a new token for each reload."""

    def __init__(self, api: FakeApiServer, *tokens: str) -> None:
        self._api, self.left, self.handed = api, list(tokens), 0

    async def sign_in(self) -> ConnectionConfig:
        self.handed += 1
        token = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return ConnectionConfig(Configuration(host=self._api.host, api_key={"BearerToken": f"Bearer {token}"}))


def take(api: FakeApiServer, *good: str) -> None:
    """Make the server refuse all other credentials."""

    async def answer(request: web.Request) -> web.StreamResponse:
        known = request.headers.get("Authorization") in [f"Bearer {token}" for token in good]
        return web.json_response({}, status=200 if known else 401)

    api.answer = answer


async def test_refused_credentials_are_renewed_and_the_request_is_sent_once_more(api: FakeApiServer) -> None:
    tokens = Tokens(api, "old", "new")
    client = Client(await tokens.sign_in(), reload=tokens.sign_in)
    take(api, "new")
    await asyncio.gather(*(client.create("/api/v1/nodes", {"a": 1}) for _ in range(5)))
    assert tokens.handed == 2
    assert await client.get("/x") == {}
    assert tokens.handed == 2
    await client.close()


async def test_credentials_that_are_refused_for_good_are_renewed_at_a_pace(api: FakeApiServer) -> None:
    tokens = Tokens(api, "bad")
    client = Client(await tokens.sign_in(), reload=tokens.sign_in)
    take(api)
    for _ in range(20):
        with pytest.raises(ApiError):
            await client.get("/x")
    assert tokens.handed == 2
    assert len(api.asked) == 20
    await client.close()


async def test_a_shared_session_uses_the_renewed_credentials(api: FakeApiServer) -> None:
    tokens = Tokens(api, "old", "new")
    client = Client(await tokens.sign_in(), reload=tokens.sign_in)
    take(api, "new")
    session = await client.session()
    async with session.get(f"{api.host}/api/v1/nodes") as response:
        assert response.status == 200
    await session.close()
    assert await client.get("/x") == {}  # the closed session must not close the shared connections
    await client.close()


async def test_credentials_are_renewed_in_background_before_expiry(api: FakeApiServer) -> None:
    tokens, gate = Tokens(api, "old", "new"), asyncio.Event()

    async def slow() -> ConnectionConfig:
        await gate.wait()
        return await tokens.sign_in()

    first = await tokens.sign_in()
    soon = datetime.now(UTC) + timedelta(seconds=5)
    client = Client(ConnectionConfig(first.configuration, expires=soon), reload=slow)
    take(api, "old", "new")
    await client.get("/x")  # the request does not wait for the slow plugin
    assert api.asked[-1][2] == "Bearer old"
    gate.set()
    await asyncio.wait_for(_until(lambda: tokens.handed == 2), 5)
    await client.get("/x")
    assert api.asked[-1][2] == "Bearer new"
    await client.close()


async def _until(found: Any) -> None:
    while not found():  # noqa: ASYNC110 - no event to wait for
        await asyncio.sleep(0.01)


async def test_a_failed_reload_keeps_the_credentials_and_is_reported(api: FakeApiServer) -> None:
    told: list[tuple[str, str, str]] = []

    async def broken() -> ConnectionConfig:
        raise ConfigError("the file is gone")

    tokens = Tokens(api, "old")
    client = Client(await tokens.sign_in(), reload=broken, report=lambda *problem: told.append(problem))
    take(api)
    with pytest.raises(ApiError):
        await client.get("/x")
    assert told == [("signin.failed", api.host, "the file is gone")]
    take(api, "old")
    assert await client.get("/x") == {}
    await client.close()


async def test_a_sign_in_that_names_another_cluster_is_not_followed(api: FakeApiServer) -> None:
    told: list[str] = []

    async def elsewhere() -> ConnectionConfig:
        return ConnectionConfig(Configuration(host="https://other:6443", api_key={"BearerToken": "Bearer new"}))

    tokens = Tokens(api, "old")
    client = Client(await tokens.sign_in(), reload=elsewhere, report=lambda *problem: told.append(problem[2]))
    take(api)
    with pytest.raises(ApiError):
        await client.get("/x")
    assert "restart the operator" in told[0]
    assert client.server == api.host
    await client.close()


# -- trust ------------------------------------------------------------------------------------------------------------


class Authority:
    """CA, and a certificate for a name that the CA signed."""

    def __init__(self, folder: Path, name: str, host: str = "127.0.0.1") -> None:
        kind = "IP" if host[0].isdigit() else "DNS"
        self.ca, self._key = folder / f"{name}.crt", folder / f"{name}.key"
        self.cert, self.key = folder / f"{name}-server.crt", folder / f"{name}-server.key"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
        _openssl("req", "-x509", *curve, "-keyout", self._key, "-out", self.ca, "-subj", f"/CN={name}")
        _openssl(
            *("req", "-x509", *curve, "-keyout", self.key, "-out", self.cert, "-subj", "/CN=server"),
            *("-CA", self.ca, "-CAkey", self._key, "-addext", f"subjectAltName={kind}:{host}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )

    def context(self) -> ssl.SSLContext:
        found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        found.load_cert_chain(self.cert, self.key)
        return found


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority, Authority]:
    folder = tmp_path_factory.mktemp("pki")
    return Authority(folder, "old"), Authority(folder, "new"), Authority(folder, "named", "apiserver.internal")


class Secure:
    """TLS server with a replaceable certificate."""

    def __init__(self) -> None:
        self.port, self.asked = 0, 0
        self._runner: web.AppRunner | None = None

    async def _answer(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        return web.json_response({})

    async def serve(self, authority: Authority) -> str:
        await self.close()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=authority.context()).start()
        self.port = self._runner.addresses[0][1]
        return f"https://127.0.0.1:{self.port}"

    async def close(self) -> None:
        if self._runner:
            await self._runner.cleanup()


@pytest.fixture
async def secure() -> AsyncIterator[Secure]:
    made = Secure()
    yield made
    await made.close()


def pod(folder: Path, secure: Secure, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Simulate a pod: ServiceAccount token, CA, and the address of the API server; no DNS."""
    from kubernetes.aio.config import incluster_config

    token, ca = folder / "token", folder / "ca.crt"
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(secure.port))
    monkeypatch.setattr(connections, "_SERVICE_ACCOUNT_TOKEN", token)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(ca))
    return token, ca


async def test_a_new_ca_is_trusted_and_the_old_one_no_more(
    secure: Secure,
    authorities: tuple[Authority, Authority, Authority],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For requests of the client, and for the session of Kopf, which logs in again after its old session is closed."""
    monkeypatch.setattr(connections, "_OLD_CONNECTIONS_CLOSE_AFTER", 0.0)
    old, new, _ = authorities
    host = await secure.serve(old)
    token, ca = pod(tmp_path, secure, monkeypatch)
    token.write_text("first")
    ca.write_text(old.ca.read_text())
    client = Client(await load_config(), reload=load_config)
    session = await client.session()
    assert client.server == host
    await client.get("/x")
    async with session.get(f"{host}/x") as response:
        assert response.status == 200

    await secure.serve(new)
    with pytest.raises(UnreachableError):
        await client.get("/x")
    ca.write_text(new.ca.read_text())
    await asyncio.wait_for(_answers(client), 10)
    await asyncio.wait_for(_until(lambda: session.closed), 10)
    session = await client.session()
    async with session.get(f"{host}/x") as response:
        assert response.status == 200
    await session.close()

    await secure.serve(old)
    with pytest.raises(UnreachableError, match=r"(?i)certificate"):
        await client.get("/y")
    await client.close()


async def _answers(client: Client) -> None:
    while True:
        try:
            await client.get("/x")
        except UnreachableError:
            await asyncio.sleep(0.02)
        else:
            return


async def test_a_token_that_is_replaced_is_used(
    secure: Secure,
    authorities: tuple[Authority, Authority, Authority],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await secure.serve(authorities[0])
    token, ca = pod(tmp_path, secure, monkeypatch)
    token.write_text("first")
    ca.write_text(authorities[0].ca.read_text())
    client = Client(await load_config(), reload=load_config)
    connector = None
    for name in ("first", "second"):
        token.write_text(name)
        await asyncio.wait_for(_until_token(client, name), 5)
        assert connector in (None, client._connections._connector)  # the connections stay because the CA did not change
        connector = client._connections._connector
    await client.close()


async def _until_token(client: Client, token: str) -> None:
    while client._connections.configuration.api_key["BearerToken"] != f"bearer {token}":
        await client.get("/x")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("trust", ["name", "nothing"])
async def test_a_kubeconfigs_tls_server_name_and_insecurity_hold_for_kopf_too(
    secure: Secure,
    authorities: tuple[Authority, Authority, Authority],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trust: str,
) -> None:
    named = authorities[2]
    host = await secure.serve(named)
    cluster = {"server": host, "certificate-authority": str(named.ca), "tls-server-name": "apiserver.internal"}
    if trust == "nothing":
        cluster = {"server": host, "insecure-skip-tls-verify": True}  # type: ignore[dict-item]
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, cluster, {"token": "t"})))
    client = Client(await load_config(), reload=load_config)
    await client.get("/x")
    session = await client.session()
    async with session.get(f"{host}/x") as response:
        assert response.status == 200
    await session.close()
    await client.close()


# -- kubeconfigs ------------------------------------------------------------------------------------------------------


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(body))
    return path


def plugin(folder: Path, version: str, script: str) -> dict[str, Any]:
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"exec": {"apiVersion": f"client.authentication.k8s.io/{version}", "command": str(path)}}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_an_exec_plugin_runs_in_background_and_again_after_a_401(
    api: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    count = tmp_path / "count"
    answer = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "kind": "ExecCredential",
        "status": {"token": "tN"},
    }
    script = f"echo x >> {count}; n=$(wc -l < {count}); sleep 0.2; echo '{json.dumps(answer)}' | sed s/tN/t$n/"
    user = plugin(tmp_path, version, script)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, {"server": api.host}, user)))
    client = Client(await load_config(), reload=load_config)
    take(api, "t1")
    await client.get("/x")
    take(api, "t2")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    beside = asyncio.create_task(tick())
    await client.get("/x")
    beside.cancel()
    assert ticks > 5  # the plugin does not block the event loop
    assert count.read_text() == "x\nx\n"
    await client.close()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 1", "returned neither a token nor a certificate"),
        ("echo '{'", "returned neither"),
        ("sleep 30", "did not answer within"),
    ],
)
async def test_an_exec_plugin_that_fails_or_hangs_is_named(
    api: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setattr(connections, "_EXEC_PLUGIN_TIMEOUT", 0.3)
    user = plugin(tmp_path, "v1", f"exec {script}" if script.startswith("sleep") else script)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, {"server": api.host}, user)))
    before = _children()
    with pytest.raises(ConfigError, match=words):
        await load_config()
    async with asyncio.timeout(10):  # the plugin was killed
        while _children() - before:  # noqa: ASYNC110 - this event loop must close the pipes, before the next test
            await asyncio.sleep(0.05)


def _children() -> set[str]:
    """Return the PIDs of running child processes."""
    children = set[str]()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            children.update(task.read_text().split())
    return children


async def test_the_expiry_of_exec_credentials_is_read(
    api: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "t", "expirationTimestamp": "2030-01-01T00:00:00Z"},
    }
    user = plugin(tmp_path, "v1", f"echo '{json.dumps(answer)}'")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, {"server": api.host}, user)))
    assert (await load_config()).expires == datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["not: a kubeconfig", "[", "\t", "users: 5\ncurrent-context: 7", "{}"])
async def test_an_invalid_kubeconfig_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ConfigError, match=str(path)):
        await load_config()


async def test_the_proxy_of_a_kubeconfig_is_used_by_both(
    api: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = {"server": "http://apiserver.invalid:8080", "proxy-url": api.host}
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, cluster, {"token": "t"})))
    client = Client(await load_config(), reload=load_config)
    await client.get("/x")
    session: aiohttp.ClientSession = await client.session()
    async with session.get("http://apiserver.invalid:8080/y") as response:
        assert response.status == 200
    await session.close()
    await client.close()
    assert [credentials for *_, credentials in api.asked] == ["Bearer t", "Bearer t"]
