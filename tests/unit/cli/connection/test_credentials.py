"""An exec plugin runs once, and again after its credentials have expired. A plugin that fails is named."""

import base64
import json
import time
from pathlib import Path

import pytest

from rescheduler.cli.connection.credentials import Credentials, credential_source
from rescheduler.cli.connection.kubeconfig import Section
from rescheduler.cli.errors import PluginError


def user(folder: Path, script: str, version: str = "v1", **fields: str) -> Section:
    (folder / "plugin").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "plugin").chmod(0o755)
    plugin = {
        "command": "./plugin",
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "interactiveMode": "Never",
    }
    return Section(folder / "config", "users[u].user", {"exec": plugin | fields})


def answer(version: str = "v1", **status: str) -> str:
    return json.dumps({"apiVersion": f"client.authentication.k8s.io/{version}", "status": status})


@pytest.mark.parametrize(("expires", "runs"), [("2030-01-01T00:00:00Z", 1), ("2020-01-01T00:00:00Z", 2), ("", 1)])
def test_a_plugin_runs_again_only_after_its_credentials_expired(tmp_path: Path, expires: str, runs: int) -> None:
    found = answer(token="t", expirationTimestamp=expires)
    source = credential_source(user(tmp_path, f"echo x >> {tmp_path}/runs\necho '{found}'"), Section())
    assert not (tmp_path / "runs").exists()
    assert [source(), source()] == [Credentials("Bearer t", source=f"{tmp_path}/plugin")] * 2
    assert (tmp_path / "runs").read_text() == "x\n" * runs


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 7", "failed with exit code 7"),
        ("echo '{'", "gave no credentials: JSONDecodeError"),
        ("echo '[]'", "gave no credentials: TypeError"),
        (f"echo '{answer()}'", "status.token is missing"),
        (f"echo '{answer(clientCertificateData='c')}'", "status.token is missing"),
        (f"echo '{answer(token='t', expirationTimestamp='soon')}'", "gave no credentials: ValueError"),
        (f"echo '{answer('v1beta1', token='t')}'", "apiVersion is client.authentication.k8s.io/v1beta1, not"),
    ],
)
def test_a_plugin_without_credentials_is_named(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(PluginError) as caught:
        credential_source(user(tmp_path, script), Section())()
    assert f"the exec plugin {tmp_path}/plugin of the kubeconfig" in caught.value.message
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_plugin_is_named_with_its_install_hint(tmp_path: Path) -> None:
    found = user(tmp_path, "", command="no-such-plugin", installHint="get it\nfrom us")
    with pytest.raises(PluginError, match="no-such-plugin of the kubeconfig is not found: get it from us"):
        credential_source(found, Section())()


def test_a_plugin_that_asks_needs_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="needs a terminal"):
        credential_source(user(tmp_path, "", interactiveMode="Always"), Section())()


def test_an_id_token_is_used_until_it_expires() -> None:
    def provider(expires: float) -> Section:
        payload = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
        config = {"name": "oidc", "config": {"id-token": f"x.{payload}.y"}}
        return Section(Path("config"), "users[u].user", {"auth-provider": config})

    assert credential_source(provider(time.time() + 60), Section())().authorization.startswith("Bearer x.")
    with pytest.raises(PluginError, match="id-token has expired; any kubectl command renews it"):
        credential_source(provider(time.time() - 60), Section())


def test_a_password_may_have_any_character() -> None:
    found = Section(Path("config"), "users[u].user", {"username": "ann", "password": "pä:ss"})
    encoded = base64.b64encode("ann:pä:ss".encode()).decode()
    assert credential_source(found, Section())().authorization == f"Basic {encoded}"


def test_a_token_file_is_read_for_each_request(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    source = credential_source(Section(tmp_path / "config", "u", {"tokenFile": "token", "token": "old"}), Section())
    assert source().authorization == "Bearer one"
    (tmp_path / "token").write_text("two")
    assert source().authorization == "Bearer two"
