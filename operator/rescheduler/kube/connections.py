"""Connections to the API server: one pool, with a CA and credentials that stay current.

Kopf uses the same pool. Kopf's own login supports no exec plugins, and it needs the cluster's DNS, which may be down.
"""

import asyncio
import asyncio.sslproto
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from yarl import URL

from rescheduler.kube import connection_limits, messages

_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_EXEC_PLUGIN_TIMEOUT = 60.0
_TLS_BUFFER = 64 * 1024  # bytes; a TLS record has at most 16 KiB
asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER  # 256 KiB for each connection otherwise: 16 MB for all of them
_FILE_CHECK_INTERVAL = 10.0  # seconds between two checks of the credential files
_MIN_RELOAD_INTERVAL = 10.0  # seconds between two reloads because of refused credentials
_RENEW_BEFORE_EXPIRY = timedelta(seconds=60)
_OLD_CONNECTIONS_CLOSE_AFTER = 60.0  # seconds that running requests have on the old connections
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
"""TCP keep-alive in seconds, TCP_USER_TIMEOUT in ms: a dead peer is noticed within 30 s. Some systems lack some options."""


class ConfigError(Exception):
    """The operator cannot use the API server; the message has the cause and the next step."""


@dataclass(frozen=True)
class ConnectionConfig:
    """Address, CA and credentials from one read of the kubeconfig or the ServiceAccount.

    Attributes:
        configuration: configuration of the client library.
        files: paths of the files that were read. A change of one file triggers a new read.
        expires: expiry of the credentials of an exec plugin; None if they do not expire.
    """

    configuration: kubernetes_client.Configuration
    files: tuple[str, ...] = ()
    expires: datetime | None = None


async def load_config() -> ConnectionConfig:
    """Read KUBECONFIG if it is set, else the ServiceAccount of the pod, else ~/.kube/config.

    Raises ConfigError with a message for users.
    """
    config = kubernetes_client.Configuration()
    named = os.environ.get("KUBECONFIG")
    try:
        if not named and await asyncio.to_thread(_SERVICE_ACCOUNT_TOKEN.exists):
            kubernetes_config.load_incluster_config(client_configuration=config, try_refresh_token=False)
            return ConnectionConfig(config, (str(_SERVICE_ACCOUNT_TOKEN), *_tls_files(config)))
        return await _from_kubeconfig(config, named)
    except ConfigError:
        raise
    except Exception as error:
        # The library raises many types for a bad kubeconfig. Without this the user gets a traceback.
        raise ConfigError(messages.unusable_kubeconfig(named, error)) from error


async def _from_kubeconfig(configuration: kubernetes_client.Configuration, kubeconfig: str | None) -> ConnectionConfig:
    parts = [part for part in (kubeconfig or "").split(os.pathsep) if part]
    for part in parts:
        if not await asyncio.to_thread(Path(part).is_file):
            raise ConfigError(messages.kubeconfig_missing(part))
    default = str(Path.home() / ".kube" / "config")
    if not kubeconfig and not await asyncio.to_thread(Path(default).is_file):
        raise ConfigError(messages.no_credentials())
    before = _child_processes()
    try:
        async with asyncio.timeout(_EXEC_PLUGIN_TIMEOUT):
            loader = await kubernetes_config.load_kube_config(
                kubeconfig or default, client_configuration=configuration, persist_config=False
            )
    except TimeoutError:
        # The library does not end the plugin: each new login would leave one more process.
        for child in _child_processes() - before:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        raise ConfigError(messages.exec_plugin_timed_out(_EXEC_PLUGIN_TIMEOUT)) from None
    user = loader._user  # noqa: SLF001 - the library has no public access to it
    if user and "exec" in user and not configuration.api_key and not configuration.cert_file:
        command = user["exec"].safe_get("command")
        raise ConfigError(messages.exec_plugin_without_credentials(command))
    expires = getattr(loader, "exec_plugin_expiry", None)
    return ConnectionConfig(
        configuration,
        (*(parts or [default]), *_tls_files(configuration)),
        expires if isinstance(expires, datetime) else None,
    )


def _child_processes() -> set[int]:
    """Return the PIDs of child processes, on Linux. The only child processes are exec plugins."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(child) for children in lists for child in children.read_text().split()}


def _tls_files(configuration: kubernetes_client.Configuration) -> tuple[str, ...]:
    return tuple(file for file in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file) if file)


def _tls_identity(config: ConnectionConfig) -> tuple[Any, ...]:
    """Return a value that changes if the CA or the client certificate changes."""
    files = _tls_files(config.configuration)
    return files, _file_versions(files), config.configuration.verify_ssl


def _file_versions(files: tuple[str, ...]) -> tuple[tuple[int, int] | None, ...]:
    """Return modification time (ns) and inode of each file; None for a missing file."""
    versions: list[tuple[int, int] | None] = []
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116 - it needs no Path object
        except OSError:
            versions.append(None)
        else:
            versions.append((status.st_mtime_ns, status.st_ino))
    return tuple(versions)


class ConnectionPool:
    """Open connections with the current CA and credentials.

    `reload` reads the credentials again; without `reload` they never change. `report` gets each problem: name of the
    log event, subject and error.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        reload: Callable[[], Awaitable[ConnectionConfig]] | None = None,
        report: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._config, self._reload, self._report = config, reload, report
        self._file_versions, self._tls_identity = _file_versions(config.files), _tls_identity(config)
        self._files_checked_at = self._reloaded_at = float("-inf")
        self._reload_task: asyncio.Task[bool] | None = None
        self._connector: aiohttp.TCPConnector | None = None
        self._rest_client: Any = None
        self._shared_sessions: list[aiohttp.ClientSession] = []
        self._closing_tasks: set[asyncio.Task[None]] = set()
        _set_proxy(config.configuration)

    @property
    def configuration(self) -> kubernetes_client.Configuration:
        """Configuration of the client library for new requests."""
        return self._config.configuration

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: Any, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send one request; the caller reads the body. Raises the errors of aiohttp unchanged."""
        answer = await self._transport().request(method, url, headers=headers, body=body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def session(self, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        """Return a new session on these connections, with these middlewares first; the caller closes it."""
        self._transport()
        self._shared_sessions = [session for session in self._shared_sessions if not session.closed]
        session = aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            proxy=self.configuration.proxy,
            middlewares=(*middlewares, self._authorize),
        )
        self._shared_sessions.append(session)
        return session

    async def close(self) -> None:
        """Close all connections."""
        for task in (*self._closing_tasks, *([self._reload_task] if self._reload_task else [])):
            task.cancel()
        await asyncio.gather(*self._closing_tasks, return_exceptions=True)
        for session in self._shared_sessions:
            await session.close()
        if self._rest_client is not None:
            await self._rest_client.close()
        if self._connector is not None:
            await self._connector.close()

    # -- trust --------------------------------------------------------------------------------------------------------

    def _transport(self) -> Any:
        """Return the transport of the library for the current configuration."""
        if self._rest_client is None:
            rest = kubernetes_client.ApiClient(self.configuration).rest_client
            self._connector = aiohttp.TCPConnector(
                ssl=rest.ssl_context, limit=connection_limits.MAX_CONNECTIONS, socket_factory=_open_socket
            )
            self.configuration.client_session_kwargs = {
                # Otherwise aiohttp would read the proxy variables and .netrc for each request.
                "trust_env": False,
                "connector": self._connector,
                "middlewares": (self._authorize,),
            }
            self._rest_client = rest
        return self._rest_client

    def _reload_if_needed(self) -> None:
        """Start a reload in the background if a file changed, or if the credentials expire within a minute."""
        now = asyncio.get_running_loop().time()
        if self._reload is None or self._reload_task or now - self._files_checked_at < _FILE_CHECK_INTERVAL:
            return
        self._files_checked_at = now
        expires = self._config.expires
        expiring = expires is not None and datetime.now(UTC) >= expires - _RENEW_BEFORE_EXPIRY
        if expiring or _file_versions(self._config.files) != self._file_versions:
            self._start_reload()

    def _start_reload(self) -> asyncio.Task[bool]:
        if self._reload_task is None:
            self._reload_task = asyncio.create_task(self._reload_config(), name="reload credentials")
        return self._reload_task

    async def _reload_config(self) -> bool:
        """Reload; whether the CA, the client certificate or the token changed."""
        self._reloaded_at = asyncio.get_running_loop().time()
        before, file_versions = self._config, _file_versions(self._config.files)
        try:
            if self._reload is None:
                return False
            config = await self._reload()
            _check_host(before.configuration, config.configuration)
            _set_proxy(config.configuration)
            tls_identity = _tls_identity(config)
            if tls_identity != self._tls_identity:
                # Raises if the files are not usable. Otherwise a half-written CA file would replace the old connections.
                kubernetes_client.ApiClient(config.configuration)
            self._config, self._file_versions = (
                config,
                file_versions if config.files == before.files else _file_versions(config.files),
            )
            if tls_identity != self._tls_identity:
                self._tls_identity = tls_identity
                self._replace_connections()
                return True
        except (ConfigError, OSError, ValueError) as error:
            self._report("signin.failed", str(before.configuration.host), str(error))
            return False
        else:
            return bool(config.configuration.api_key != before.configuration.api_key)
        finally:
            self._reload_task = None

    def _replace_connections(self) -> None:
        """Use new connections; close the old ones after a minute, so that running requests can finish."""
        rest, connector, sessions = self._rest_client, self._connector, self._shared_sessions
        self._rest_client, self._connector, self._shared_sessions = None, None, []

        async def close() -> None:
            await asyncio.sleep(_OLD_CONNECTIONS_CLOSE_AFTER)
            for session in sessions:
                await session.close()
            if rest is not None:
                await rest.close()
            if connector is not None:
                await connector.close()

        task = asyncio.create_task(close(), name="close old connections")
        self._closing_tasks.add(task)
        task.add_done_callback(self._closing_tasks.discard)

    # -- credentials --------------------------------------------------------------------------------------------------

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Add credentials to a request; send it once more with new credentials after a 401."""
        self._reload_if_needed()
        if request.url.origin() != URL(self.configuration.host).origin():
            return await handler(request)  # a redirect to another host must not get the token
        if self.configuration.tls_server_name:
            request.server_hostname = self.configuration.tls_server_name
        used = await self._authorization_header()
        if used:
            request.headers["Authorization"] = used
        response = await handler(request)
        if response.status != 401 or not await self._has_new_credentials(used):
            return response
        response.release()
        if used := await self._authorization_header():
            request.headers["Authorization"] = used
        return await handler(request)

    async def _authorization_header(self) -> str:
        try:
            settings = await self.configuration.auth_settings()
        except Exception as error:
            # Too many open files, or a token file that is replaced at this moment.
            raise aiohttp.ClientConnectionError(f"the credentials cannot be read: {error}") from error
        return next((setting["value"] or "" for setting in settings.values()), "")

    async def _has_new_credentials(self, refused: str) -> bool:
        """Whether the credentials now differ from the refused ones; reload them if not."""
        if await self._authorization_header() != refused:
            return True
        if self._reload is None:
            return False
        if self._reload_task is None and asyncio.get_running_loop().time() - self._reloaded_at < _MIN_RELOAD_INTERVAL:
            return False
        return await asyncio.shield(self._start_reload())


def _open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _check_host(before: kubernetes_client.Configuration, now: kubernetes_client.Configuration) -> None:
    if now.host != before.host:
        # The store is full of objects of the old cluster.
        raise ConfigError(messages.server_changed(str(now.host)))


def _set_proxy(configuration: kubernetes_client.Configuration) -> None:
    configuration.proxy = configuration.proxy or _proxy_from_environment(configuration.host)


def _proxy_from_environment(address: str) -> str | None:
    """Return the proxy from the environment for an address (HTTPS_PROXY, NO_PROXY); None if no proxy applies."""
    url = urlsplit(address)
    return None if not url.hostname or proxy_bypass(url.hostname) else getproxies().get(url.scheme)
