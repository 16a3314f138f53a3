"""The way to the API server: one pool of connections, with trust and credentials that are kept current.

Kopf uses it too. Its own sign-in knows no exec plugins, and needs the cluster's DNS, which may be what has failed.
"""

import asyncio
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

from rescheduler.kube import connection_limits

_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_EXEC_PLUGIN_TIMEOUT = 60.0
_FILE_CHECK_INTERVAL = 10.0  # seconds between two looks at the files of the sign-in
_MIN_RELOAD_INTERVAL = 10.0  # seconds between two times that credentials are read again because they were refused
_RENEW_BEFORE_EXPIRY = timedelta(seconds=60)
_OLD_CONNECTIONS_CLOSE_AFTER = 60.0  # seconds that requests have to end on connections that trust an old CA
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
"""A peer that lost its power is noticed within 30 s; not every system has all of these."""


class ConfigError(Exception):
    """There is no usable way to the API server; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class ConnectionConfig:
    """What one reading of the kubeconfig or the ServiceAccount found.

    Attributes:
        files: what it was read from: if one of them changes, it is read again.
        expires: when an exec plugin said that its credentials end.
    """

    configuration: kubernetes_client.Configuration
    files: tuple[str, ...] = ()
    expires: datetime | None = None


async def load_config() -> ConnectionConfig:
    """Find the way to the API server: KUBECONFIG (or ~/.kube/config) if there is one, else the pod's ServiceAccount.

    Raises ConfigError with a message for people.
    """
    found = kubernetes_client.Configuration()
    named = os.environ.get("KUBECONFIG")
    try:
        if not named and await asyncio.to_thread(_SERVICE_ACCOUNT_TOKEN.exists):
            kubernetes_config.load_incluster_config(client_configuration=found, try_refresh_token=False)
            return ConnectionConfig(found, (str(_SERVICE_ACCOUNT_TOKEN), *_tls_files(found)))
        return await _from_kubeconfig(found, named)
    except ConfigError:
        raise
    except Exception as error:
        # A kubeconfig is what somebody wrote: whatever breaks in the library's hands breaks for want of a usable one.
        where = f"KUBECONFIG {named}" if named else "~/.kube/config or the ServiceAccount's token"
        raise ConfigError(f"{where} cannot be used: {error}") from error


async def _from_kubeconfig(configuration: kubernetes_client.Configuration, kubeconfig: str | None) -> ConnectionConfig:
    parts = [part for part in (kubeconfig or "").split(os.pathsep) if part]
    for part in parts:
        if not await asyncio.to_thread(Path(part).is_file):
            raise ConfigError(f"KUBECONFIG names {part}, which is not a file: set it to a kubeconfig that exists")
    default = str(Path.home() / ".kube" / "config")
    if not kubeconfig and not await asyncio.to_thread(Path(default).is_file):
        raise ConfigError(
            "no KUBECONFIG, no ~/.kube/config and no ServiceAccount token: set KUBECONFIG, "
            "or run in a cluster under the chart's ServiceAccount"
        )
    before = _child_processes()
    try:
        async with asyncio.timeout(_EXEC_PLUGIN_TIMEOUT):
            loader = await kubernetes_config.load_kube_config(
                kubeconfig or default, client_configuration=configuration, persist_config=False
            )
    except TimeoutError:
        # The library leaves it running: each new sign-in would leave one more.
        for child in _child_processes() - before:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        raise ConfigError(f"the exec plugin of KUBECONFIG did not answer within {_EXEC_PLUGIN_TIMEOUT:.0f} s") from None
    user = loader._user  # noqa: SLF001 - the library has no other way; its own refresh_token does the same
    if user and "exec" in user and not configuration.api_key and not configuration.cert_file:
        command = user["exec"].safe_get("command")
        raise ConfigError(f"the exec plugin {command} gave neither a token nor a certificate: run it by hand")
    expires = getattr(loader, "exec_plugin_expiry", None)
    return ConnectionConfig(
        configuration,
        (*(parts or [default]), *_tls_files(configuration)),
        expires if isinstance(expires, datetime) else None,
    )


def _child_processes() -> set[int]:
    """Return the processes that this one has started, on Linux; this process starts none but exec plugins."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(child) for each in lists for child in each.read_text().split()}


def _tls_files(configuration: kubernetes_client.Configuration) -> tuple[str, ...]:
    return tuple(file for file in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file) if file)


def _tls_identity(config: ConnectionConfig) -> tuple[Any, ...]:
    """What tells two ways apart to trust the server, and to be known to it by a certificate."""
    files = _tls_files(config.configuration)
    return files, _file_versions(files), config.configuration.verify_ssl


def _file_versions(files: tuple[str, ...]) -> tuple[tuple[int, int] | None, ...]:
    """What tells two versions of the files apart; None for a file that is not there now."""
    found: list[tuple[int, int] | None] = []
    for file in files:
        try:
            seen = os.stat(file)  # noqa: PTH116 - one call, and no object for it
        except OSError:
            found.append(None)
        else:
            found.append((seen.st_mtime_ns, seen.st_ino))
    return tuple(found)


class ConnectionPool:
    """Connections, and what they are opened with.

    `reload` signs in again; without it the credentials stay as they are. `report` is told what went wrong: event,
    subject and error.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        reload: Callable[[], Awaitable[ConnectionConfig]] | None = None,
        report: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._config, self._reload, self.report = config, reload, report
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
        """What is signed in with now."""
        return self._config.configuration

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: Any, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send one request; the answer's body is still to be read. Raises what breaks on the wire as it is."""
        answer = await self._transport().request(method, url, headers=headers, body=body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def session(self) -> aiohttp.ClientSession:
        """Make a session on these connections for somebody else, who closes it."""
        self._transport()
        self._shared_sessions = [guest for guest in self._shared_sessions if not guest.closed]
        guest = aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            proxy=self.configuration.proxy,
            middlewares=(self._authorize,),
        )
        self._shared_sessions.append(guest)
        return guest

    async def close(self) -> None:
        """Close all connections."""
        for task in (*self._closing_tasks, *([self._reload_task] if self._reload_task else [])):
            task.cancel()
        await asyncio.gather(*self._closing_tasks, return_exceptions=True)
        for guest in self._shared_sessions:
            await guest.close()
        if self._rest_client is not None:
            await self._rest_client.close()
        if self._connector is not None:
            await self._connector.close()

    # -- trust --------------------------------------------------------------------------------------------------------

    def _transport(self) -> Any:
        """The library's transport for the configuration as it is now."""
        if self._rest_client is None:
            rest = kubernetes_client.ApiClient(self.configuration).rest_client
            self._connector = aiohttp.TCPConnector(
                ssl=rest.ssl_context, limit=connection_limits.MAX_CONNECTIONS, socket_factory=_open_socket
            )
            self.configuration.client_session_kwargs = {
                # The environment is asked once: aiohttp would look for a proxy and a .netrc with each request.
                "trust_env": False,
                "connector": self._connector,
                "middlewares": (self._authorize,),
            }
            self._rest_client = rest
        return self._rest_client

    def _reload_if_needed(self) -> None:
        """Sign in again, beside the work, when a file has changed or credentials are about to expire."""
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
            self._reload_task = asyncio.create_task(self._reload_config(), name="sign in again")
        return self._reload_task

    async def _reload_config(self) -> bool:
        """Whether something is otherwise than before."""
        self._reloaded_at = asyncio.get_running_loop().time()
        before, stamps = self._config, _file_versions(self._config.files)
        try:
            if self._reload is None:
                return False
            found = await self._reload()
            _check_host(before.configuration, found.configuration)
            _set_proxy(found.configuration)
            trusted = _tls_identity(found)
            if trusted != self._tls_identity:
                kubernetes_client.ApiClient(found.configuration)  # raises if the files cannot be used
            self._config, self._file_versions = (
                found,
                stamps if found.files == before.files else _file_versions(found.files),
            )
            if trusted != self._tls_identity:
                self._tls_identity = trusted
                self._replace_connections()
                return True
        except (ConfigError, OSError, ValueError) as error:
            self.report("signin.failed", str(before.configuration.host), str(error))
            return False
        else:
            return bool(found.configuration.api_key != before.configuration.api_key)
        finally:
            self._reload_task = None

    def _replace_connections(self) -> None:
        """Use new connections from now on; what is under way on the old ones has some time to end."""
        rest, connector, guests = self._rest_client, self._connector, self._shared_sessions
        self._rest_client, self._connector, self._shared_sessions = None, None, []

        async def close() -> None:
            await asyncio.sleep(_OLD_CONNECTIONS_CLOSE_AFTER)
            for guest in guests:
                await guest.close()
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
        """Add credentials to one request; once more with new ones if they are refused."""
        self._reload_if_needed()
        if request.url.origin() != URL(self.configuration.host).origin():
            return await handler(request)  # a redirect to elsewhere: the token is not for them
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
            # Too many open files, or a token file that is being replaced.
            raise aiohttp.ClientConnectionError(f"the credentials cannot be read: {error}") from error
        return next((setting["value"] or "" for setting in settings.values()), "")

    async def _has_new_credentials(self, refused: str) -> bool:
        """Whether there are other credentials than those that were refused."""
        if await self._authorization_header() != refused:
            return True
        if self._reload is None:
            return False
        if self._reload_task is None and asyncio.get_running_loop().time() - self._reloaded_at < _MIN_RELOAD_INTERVAL:
            return False
        return await asyncio.shield(self._start_reload())


def _open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def _check_host(before: kubernetes_client.Configuration, now: kubernetes_client.Configuration) -> None:
    if now.host != before.host:
        # All that is in memory is of the other cluster.
        raise ConfigError(f"the sign-in names another API server now, {now.host}: restart the operator")


def _set_proxy(configuration: kubernetes_client.Configuration) -> None:
    configuration.proxy = configuration.proxy or _proxy_from_environment(configuration.host)


def _proxy_from_environment(address: str) -> str | None:
    """The proxy that the environment names for an address (HTTPS_PROXY, NO_PROXY); None where it names none."""
    url = urlsplit(address)
    return None if not url.hostname or proxy_bypass(url.hostname) else getproxies().get(url.scheme)
