"""Requests to one API server over HTTP, with the CA, credentials and proxy of a kubeconfig."""

import contextlib
import ipaddress
import json
import os
import re
import ssl
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlencode, urlsplit

import urllib3
from urllib3.util.ssl_ import create_urllib3_context

from rescheduler.cli.connection import messages
from rescheduler.cli.connection.credentials import Credentials, CredentialSource
from rescheduler.cli.connection.kubeconfig import Section
from rescheduler.cli.errors import PluginError

_TIMEOUT = 30.0  # seconds
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "kubectl-reschedule"}
_PROXY_SCHEMES = ("http", "https", "socks5")
_RETRIES = urllib3.Retry(total=5, connect=0, read=0, other=0, redirect=3, raise_on_status=False)
"""Repeats a request only if the API server asks for it by Retry-After, and follows redirects."""


class Answer:
    """A response of the API server, whatever its status code."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self._response, self.url = response, url
        self.status_code, self.reason = response.status, response.reason or ""

    @property
    def ok(self) -> bool:
        """Whether the API server carried out the request."""
        return self.status_code < 400

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers."""
        return self._response.headers

    @property
    def text(self) -> str:
        """Return the body."""
        return self._response.data.decode(errors="replace")

    def json(self) -> Any:
        """Return the parsed body. Raises ValueError."""
        return json.loads(self._response.data)

    def iter_lines(self) -> Iterator[bytes]:
        """Yield the lines of a stream as they come."""
        rest = b""
        for chunk in self._response.stream(amt=65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def __enter__(self) -> Self:
        """Return the answer, whose stream is closed at the end."""
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream: a connection in the middle of a watch serves no other request."""
        self._response.close()


class Connection:
    """A connection to one API server.

    Attributes:
        url: address of the API server.
        namespace: of the context.
    """

    def __init__(
        self,
        cluster: Section,
        credentials: CredentialSource,
        *,
        namespace: str = "default",
        headers: list[tuple[str, str]] | None = None,
        timeout: float | None = None,
    ) -> None:
        server = cluster.required_text("server").rstrip("/")
        self.url = server if "://" in server else f"http://{server}"
        self.namespace = namespace
        self._cluster, self._headers = cluster, headers or []
        # kubectl sends no credentials over plain HTTP.
        self._credentials = credentials if self.url.startswith("https://") else Credentials
        self._proxy = _proxy_url(cluster, self.url)
        self._timeout = (timeout or None) if timeout is not None else _TIMEOUT
        self._pool: urllib3.PoolManager | None = None
        self._pool_certificate = b""

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        data: str | None = None,
        stream: bool = False,
    ) -> Answer:
        """Send a request. `path` begins with a slash. Raises PluginError, and the errors of urllib3."""
        credentials = self._credentials()
        sent = urllib3.HTTPHeaderDict(_HEADERS)
        sent.update(headers or {})
        for name, value in self._headers:
            sent.add(name, value.encode().decode("latin-1"))  # the bytes of UTF-8, as kubectl sends them
        if credentials.authorization:
            sent["Authorization"] = credentials.authorization
        url = f"{self.url}{path}" + (f"?{urlencode(params)}" if params else "")
        # A watch may be silent for longer than the time limit of a request.
        read_timeout = max(self._timeout, _TIMEOUT) if stream and self._timeout else self._timeout
        timeout = urllib3.Timeout(connect=self._timeout, read=read_timeout)
        response = self._pool_for(credentials).request(
            method.upper(), url, headers=sent, body=data, timeout=timeout, preload_content=not stream, retries=_RETRIES
        )
        return Answer(response, url)

    def _pool_for(self, credentials: Credentials) -> urllib3.PoolManager:
        """Return the connections of a client certificate."""
        if self._pool is None or self._pool_certificate != credentials.certificate:
            self._pool_certificate = credentials.certificate
            self._pool = self._open_pool(credentials)
        return self._pool

    def _open_pool(self, credentials: Credentials) -> urllib3.PoolManager:
        options: dict[str, Any] = {}
        if self.url.startswith("https://"):
            options["ssl_context"] = context = self._ssl_context(credentials)
            if name := self._cluster.text("tls-server-name"):
                options["server_hostname"] = name
            if context.verify_mode is ssl.CERT_NONE:
                warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        if not self._proxy:
            return urllib3.PoolManager(**options)
        parts = urlsplit(self._proxy)
        if parts.scheme == "socks5":
            from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415 - few need it

            # socks5h: the proxy resolves the name, as with kubectl
            return SOCKSProxyManager(self._proxy.replace("socks5://", "socks5h://", 1), **options)
        if parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=login)
        if parts.scheme == "https":
            options["proxy_ssl_context"] = options.get("ssl_context")
        return urllib3.ProxyManager(self._proxy, **options)

    def _ssl_context(self, credentials: Credentials) -> ssl.SSLContext:
        authority = self._cluster.data_or_file("certificate-authority")
        context = create_urllib3_context()
        # Go has neither check. Many clusters have a CA that Python 3.13 would refuse.
        context.verify_flags = (context.verify_flags & ~ssl.VERIFY_X509_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN
        if self._cluster.value("insecure-skip-tls-verify", bool, default=False):
            if authority:
                insecure, authorities = map(
                    self._cluster.name_of, ("insecure-skip-tls-verify", "certificate-authority")
                )
                raise self._cluster.error(messages.excludes(insecure, authorities))
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif authority:
            try:
                context.load_verify_locations(cadata=authority.decode("ascii", "ignore"))
            except (ssl.SSLError, ValueError) as error:
                place = self._cluster.name_of("certificate-authority")
                raise self._cluster.error(messages.not_a(place, "certificate in PEM")) from error
        else:
            context.load_default_certs()
        if credentials.certificate:
            _load_client_certificate(context, credentials)
        return context


def _load_client_certificate(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Load the certificate. Python reads it from a file only, which is gone afterwards. Raises PluginError."""
    with tempfile.NamedTemporaryFile(prefix="kubectl-reschedule-") as file:
        file.write(credentials.certificate + b"\n" + credentials.key)
        file.flush()
        try:
            # Without a password for an encrypted key, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(file.name, password="")
        except ssl.SSLError as error:
            raise PluginError(messages.certificate_unusable(credentials.source)) from error


def _proxy_url(cluster: Section, server: str) -> str:
    """Return the proxy of the kubeconfig, or else of the environment; empty for none."""
    if proxy := cluster.text("proxy-url"):
        if urlsplit(proxy).scheme not in _PROXY_SCHEMES:
            allowed = ", ".join(f"{scheme}://…" for scheme in _PROXY_SCHEMES)
            raise cluster.error(messages.unknown_value(cluster.name_of("proxy-url"), proxy, allowed))
        return proxy
    parts = urlsplit(server)
    for variable in (f"{parts.scheme.upper()}_PROXY", f"{parts.scheme}_proxy"):
        if proxy := os.environ.get(variable, ""):
            bypass = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
            return "" if _bypasses_proxy(parts.hostname or "", bypass) else _with_scheme(proxy)
    return ""


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _bypasses_proxy(host: str, no_proxy: str) -> bool:
    """Whether a request to a host uses no proxy, by the rules of Go: loopback, names, addresses and ranges."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_loopback:
            return True
        for entry in re.split(r"[\s,]+", no_proxy):
            with contextlib.suppress(ValueError):
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
    names = [entry.lower().partition(":")[0].removeprefix("*.") for entry in re.split(r"[\s,]+", no_proxy) if entry]
    dotted = f".{host.lower()}"
    return host == "localhost" or "*" in names or any(dotted.endswith(f".{name.lstrip('.')}") for name in names)
