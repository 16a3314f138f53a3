"""A kubeconfig that cannot be used is named with its file and its field. tests/e2e compares the rest with kubectl."""

from pathlib import Path

import pytest

from rescheduler.cli.connection.cluster import open_connection
from rescheduler.cli.connection.kubeconfig import (
    ConnectionFlags,
    choose_entries,
    kubeconfig_paths,
    read_kubeconfig,
)
from rescheduler.cli.errors import PluginError

GOOD = """
clusters: [{name: 2026-01-01, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: USER}]
contexts: [{name: c, context: {cluster: 2026-01-01, user: u, namespace: shop}}]
current-context: c
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return path


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(PluginError) as caught:
        open_connection(ConnectionFlags())
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense: [", "while parsing"),
        ("a\x00b", "unacceptable character"),
        ("- a", "it is not a mapping"),
        ("clusters: {}", "clusters is not a list"),
        ("clusters: [x]", "clusters[0] is not a mapping"),
        ("clusters: [{cluster: {}}]", "clusters[0].name is missing"),
        ("users: [{name: a}, {name: a}]", "users[a] is there twice"),
        ("users: [{name: a, user: b}]", "users[a].user is not a mapping"),
        ("current-context: 7", "current-context is not a string"),
        ("", "has no current-context"),
        ("current-context: d", "the context d, named by current-context, is not in the kubeconfig"),
        (
            GOOD.replace("user: u,", "user: v,").replace("USER", "{}"),
            "the user v, named by contexts[c].context.user, is not in",
        ),
        (GOOD.replace("cluster: 2026-01-01, ", "").replace("USER", "{}"), "contexts[c].context.cluster is missing"),
        (GOOD.replace("USER", "{token: 5}"), "users[u].user.token is not a string"),
        (GOOD.replace("USER", "{client-certificate-data: '5'}"), "users[u].user.client-certificate-data is not base64"),
        (GOOD.replace("USER", "{client-certificate: none}"), "users[u].user.client-certificate names"),
        (GOOD.replace("USER", "{client-certificate-data: eA==}"), "users[u].user.client-key is missing"),
        (GOOD.replace("USER", "{token: a, username: b}"), "users[u].user.token and users[u].user.username exclude"),
        (GOOD.replace("USER", "{as-groups: [a]}"), "impersonated without a user: use --as"),
        (GOOD.replace("USER", "{as: a, as-groups: [1]}"), "users[u].user.as-groups is not a list of strings"),
        (GOOD.replace("USER", "{auth-provider: {name: gcp}}"), "users[u].user.auth-provider.name is gcp, which needs"),
        (GOOD.replace("USER", "{exec: {apiVersion: x}}"), "users[u].user.exec.command is missing"),
        (GOOD.replace("USER", "{exec: {command: x, apiVersion: v1}}"), "users[u].user.exec.apiVersion is v1, not"),
        (
            GOOD.replace("USER", "{exec: {command: x, apiVersion: client.authentication.k8s.io/v1}}"),
            "users[u].user.exec.interactiveMode is missing, not Never",
        ),
    ],
)
def test_an_unusable_kubeconfig_is_named_with_its_field(config: Path, text: str, words: str) -> None:
    message = refused(config, text)
    assert words in message
    if "impersonated" not in words:
        assert str(config) in message


def test_a_folder_and_an_unreadable_file_are_no_kubeconfig(config: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="Is a directory"):
        open_connection(ConnectionFlags(kubeconfig=str(tmp_path)))


def test_without_any_file_the_place_is_named(config: Path) -> None:
    with pytest.raises(PluginError, match=f"no kubeconfig is found in {config}"):
        open_connection(ConnectionFlags())


def test_a_file_that_is_listed_twice_is_read_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.touch()
    monkeypatch.setenv("KUBECONFIG", f":{config}::{config}:{config}-missing")
    assert kubeconfig_paths("") == [config]


def test_a_name_that_looks_like_a_date_is_a_string(config: Path) -> None:
    config.write_text(GOOD.replace("USER", "{}"))
    chosen = choose_entries(read_kubeconfig([config]), ConnectionFlags())
    assert chosen is not None
    assert (chosen.cluster.place, chosen.namespace) == ("clusters[2026-01-01].cluster", "shop")
