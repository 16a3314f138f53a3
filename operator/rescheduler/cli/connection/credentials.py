"""Credentials of a user of a kubeconfig: token, password, client certificate, or the answer of an exec plugin.

kubectl runs an exec plugin only if the user has no other credentials, and sends no credentials over plain HTTP.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from rescheduler.cli.connection import messages
from rescheduler.cli.connection.kubeconfig import ConnectionFlags, Section
from rescheduler.cli.errors import PluginError

_EXEC_GROUP = "client.authentication.k8s.io"
_EXEC_VERSIONS = (f"{_EXEC_GROUP}/v1", f"{_EXEC_GROUP}/v1beta1")
_INTERACTIVE_MODES = ("Never", "IfAvailable", "Always")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials of one request.

    Attributes:
        authorization: value of the header; empty for none.
        certificate, key: the client certificate in PEM; empty for none.
        source: where the certificate is from, for errors.
    """

    authorization: str = ""
    certificate: bytes = b""
    key: bytes = b""
    source: str = ""


CredentialSource = Callable[[], Credentials]
"""Returns the current credentials, which may change while a command runs."""


def credential_source(user: Section, cluster: Section) -> CredentialSource:
    """Return the source of the credentials of a user. Raises PluginError if a field is wrong."""
    certificate, key = user.data_or_file("client-certificate"), b""
    source = f"{user.name_of('client-certificate')} in the kubeconfig {user.file}"
    if certificate and not (key := user.data_or_file("client-key")):
        raise user.error(messages.field_missing(user.name_of("client-key")))
    username, password = user.text("username"), user.text("password")
    token = user.text("token")
    if token and (username or password):
        raise user.error(messages.excludes(user.name_of("token"), user.name_of("username")))
    if user.path("tokenFile"):
        # Read for each request: others may renew the file.
        return lambda: Credentials(
            _bearer(user.read_file("tokenFile").decode().strip() or token), certificate, key, source
        )
    if username or password:
        basic = base64.b64encode(f"{username}:{password}".encode()).decode()
        return lambda: Credentials(f"Basic {basic}", certificate, key, source)
    if not token and (provider := user.section("auth-provider")):
        token = _id_token(provider)
    if token or certificate:
        return lambda: Credentials(_bearer(token), certificate, key, source)
    if plugin := user.section("exec"):
        return ExecPlugin(plugin, cluster)
    return Credentials


def impersonation_headers(user: Section, flags: ConnectionFlags) -> list[tuple[str, str]]:
    """Return the headers that act as another user. Raises PluginError for groups without a user."""
    name = flags.impersonated_user or user.text("as")
    uid = flags.impersonated_uid or user.text("as-uid")
    groups = flags.impersonated_groups or user.texts("as-groups")
    extra = user.section("as-user-extra")
    if not name:
        if uid or groups or extra:
            raise PluginError(messages.impersonation_without_user())
        return []
    headers = [("Impersonate-User", name), *([("Impersonate-Uid", uid)] if uid else [])]
    headers += [("Impersonate-Group", group) for group in groups]
    if extra:
        headers += [(f"Impersonate-Extra-{quote(k, safe='')}", value) for k in extra.fields for value in extra.texts(k)]
    return headers


class ExecPlugin:
    """An exec plugin of a kubeconfig. It runs once, and again only when its credentials have expired."""

    def __init__(self, plugin: Section, cluster: Section) -> None:
        self._command, self._arguments = plugin.required_text("command"), plugin.texts("args")
        if os.sep in self._command:
            self._command = str(plugin.path("command"))
        self._version = plugin.required_text("apiVersion")
        if self._version not in _EXEC_VERSIONS:
            allowed = " or ".join(_EXEC_VERSIONS)
            raise plugin.error(messages.unknown_value(plugin.name_of("apiVersion"), self._version, allowed))
        self._mode = plugin.text("interactiveMode")
        if not self._mode and self._version != _EXEC_VERSIONS[0]:
            self._mode = "IfAvailable"
        if self._mode not in _INTERACTIVE_MODES:
            allowed = ", ".join(_INTERACTIVE_MODES)
            raise plugin.error(
                messages.unknown_value(plugin.name_of("interactiveMode"), self._mode or "missing", allowed)
            )
        self._hint = " ".join(plugin.text("installHint").split())
        self._environment = {item.required_text("name"): item.text("value") for item in plugin.sections("env")}
        self._cluster = _cluster_info(cluster) if plugin.value("provideClusterInfo", bool, default=False) else None
        self._credentials: Credentials | None = None
        self._expires = float("inf")

    def __call__(self) -> Credentials:
        """Return the credentials. Raises PluginError if the plugin gives none."""
        if self._credentials is None or time.time() >= self._expires:
            self._credentials, self._expires = self._parse(self._run())
        return self._credentials

    def _run(self) -> bytes:
        terminal = sys.stdin is not None and sys.stdin.isatty()
        if self._mode == "Always" and not terminal:
            raise PluginError(messages.plugin_needs_terminal(self._command))
        interactive = terminal and self._mode != "Never"
        spec = {"interactive": interactive} | ({"cluster": self._cluster} if self._cluster else {})
        info = json.dumps({"apiVersion": self._version, "kind": "ExecCredential", "spec": spec})
        try:
            done = subprocess.run(  # noqa: S603 - the kubeconfig names the program, as for kubectl
                [self._command, *self._arguments],
                env=os.environ | self._environment | {"KUBERNETES_EXEC_INFO": info},
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
            )
        except OSError as error:
            raise PluginError(messages.plugin_not_found(self._command, self._hint)) from error
        if done.returncode:
            raise PluginError(messages.plugin_failed(self._command, done.returncode))
        return done.stdout

    def _parse(self, answer: bytes) -> tuple[Credentials, float]:
        """Return the credentials and their expiry, in seconds since 1970."""
        try:
            parsed = json.loads(answer)
            version, status = parsed["apiVersion"], parsed["status"]
            token, certificate, key, expiry = (
                str(status.get(name) or "")
                for name in ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
            )
            expires = datetime.fromisoformat(expiry).astimezone(UTC).timestamp() if expiry else float("inf")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise PluginError(messages.plugin_answer_unusable(self._command, cause)) from error
        if version != self._version:
            cause = messages.unknown_value("apiVersion", str(version), self._version)
            raise PluginError(messages.plugin_answer_unusable(self._command, cause))
        if not token and not (certificate and key):
            raise PluginError(messages.plugin_answer_unusable(self._command, messages.field_missing("status.token")))
        return Credentials(_bearer(token), certificate.encode(), key.encode(), self._command), expires


def _bearer(token: str) -> str:
    return f"Bearer {token}" if token else ""


def _cluster_info(cluster: Section) -> dict[str, Any]:
    """Return the field `spec.cluster` for an exec plugin."""
    plain = {
        name: value
        for name in ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
        if (value := cluster.fields.get(name))
    }
    authority = cluster.data_or_file("certificate-authority")
    extensions = (each for each in cluster.sections("extensions") if each.text("name") == f"{_EXEC_GROUP}/exec")
    config = next((each.fields.get("extension") for each in extensions), None)
    return (
        plain
        | ({"certificate-authority-data": base64.b64encode(authority).decode()} if authority else {})
        | ({"config": config} if config is not None else {})
    )


def _id_token(provider: Section) -> str:
    """Return the ID token of the auth provider oidc. kubectl renews it, the plugin does not."""
    name = provider.text("name")
    config = provider.section("config")
    if name != "oidc" or config is None:
        raise provider.error(messages.provider_unsupported(provider.name_of("name"), name or "missing"))
    token = config.required_text("id-token")
    try:
        payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        expired = time.time() >= float(payload["exp"])
    except (ValueError, LookupError, TypeError):
        expired = True
    if expired:
        raise config.error(messages.id_token_expired(config.name_of("id-token")))
    return token
