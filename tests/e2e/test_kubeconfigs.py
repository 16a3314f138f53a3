"""The plugin talks to the server that kubectl talks to, as the same user: both are compared over kubeconfigs."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml
from click.testing import CliRunner

from harness import ControlPlane, binaries, workloads
from harness.connect_proxy import ConnectProxy
from rescheduler.cli.cluster_api import ClusterApi, connect, parse_json, raise_for_error
from rescheduler.cli.connection.options import ClusterCommand

REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
ALL = ("admin", "token", "token-file", "certificate-files", "exec-v1", "exec-v1beta1", "exec-certificate", "both")


@click.command(cls=ClusterCommand)
def whoami() -> None:
    """Print the address of the server and the user that it sees."""
    server = ClusterApi(connect())
    for _ in range(2):  # an exec plugin runs once for both
        answer = server.send("post", REVIEW["apiVersion"], "selfsubjectreviews", data=json.dumps(REVIEW))
        raise_for_error(answer, "ask for the user")
    click.echo(json.dumps([urlsplit(answer.url).netloc, parse_json(answer)["status"]["userInfo"]]))


@dataclass
class Kubeconfigs:
    """Files of kubeconfigs for one control plane."""

    plane: ControlPlane
    folder: Path
    proxy: ConnectProxy
    token: str = ""
    users: dict[str, dict[str, Any]] = field(default_factory=dict)

    def cluster(self, **fields: Any) -> dict[str, Any]:
        authority = base64.b64encode((self.plane.pki / "ca.crt").read_bytes()).decode()
        found = {"server": self.plane.server, "certificate-authority-data": authority} | fields
        return {name: value for name, value in found.items() if value is not None}

    def write(self, name: str, body: Mapping[str, Any] | str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body if isinstance(body, str) else yaml.safe_dump(body))
        return str(path)

    def entries(self, *contexts: str, current: str = "", **fields: Any) -> dict[str, Any]:
        """Return a kubeconfig with a context for each of these users."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": current,
            "clusters": [{"name": "main", "cluster": self.cluster(**fields)}],
            "users": [{"name": name, "user": self.users[name]} for name in contexts],
            "contexts": [{"name": name, "context": {"cluster": "main", "user": name}} for name in contexts],
        }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubeconfigs]:
    with ControlPlane.start() as plane:
        folder = tmp_path_factory.mktemp("kubeconfigs")
        plane.apply(workloads.namespace("people"))
        plane.kubectl("create", "serviceaccount", "ann", "-n", "people")
        token = plane.kubectl("create", "token", "ann", "-n", "people", "--duration=24h").strip()
        with ConnectProxy("127.0.0.1", urlsplit(plane.server).port or 0) as proxy:
            found = Kubeconfigs(plane, folder, proxy, token)
            found.users |= _users(found)
            yield found


def _users(files: Kubeconfigs) -> dict[str, dict[str, Any]]:
    (files.folder / "keys").mkdir()
    for name in ("admin.crt", "admin.key"):
        (files.folder / "keys" / name).write_bytes((files.plane.pki / name).read_bytes())
    (files.folder / "token").write_text(f"{files.token}\n")
    certificate, key = ((files.plane.pki / name).read_text() for name in ("admin.crt", "admin.key"))
    return {
        "admin": {
            "client-certificate-data": base64.b64encode(certificate.encode()).decode(),
            "client-key-data": base64.b64encode(key.encode()).decode(),
        },
        "token": {"token": files.token},
        "token-file": {"tokenFile": "token"},
        "certificate-files": {"client-certificate": "keys/admin.crt", "client-key": "keys/admin.key"},
        "exec-v1": _plugin(files, "v1", {"token": files.token}, interactiveMode="Never"),
        "exec-v1beta1": _plugin(files, "v1beta1", {"token": files.token}, args=["a", "b c"]),
        "exec-certificate": _plugin(
            files, "v1", {"clientCertificateData": certificate, "clientKeyData": key}, interactiveMode="IfAvailable"
        ),
        "both": {"token": files.token} | _plugin(files, "v1", {"token": "wrong"}, interactiveMode="Never"),
        "impersonates": {"token": "", "as": "bob", "as-groups": ["a", "b"], "as-user-extra": {"Why/x": ["1", "2"]}}
        | {"client-certificate": "keys/admin.crt", "client-key": "keys/admin.key"},
    }


def _plugin(files: Kubeconfigs, version: str, status: Mapping[str, str], **fields: Any) -> dict[str, Any]:
    """Return a user with an exec plugin that checks its input, and adds a line to the file `runs`."""
    answer = {"apiVersion": f"client.authentication.k8s.io/{version}", "kind": "ExecCredential", "status": status}
    name = f"plugin-{len(list(files.folder.glob('plugin-*')))}"
    checks = f'case "$KUBERNETES_EXEC_INFO" in *{version}\\"*main-cluster*) ;; *) exit 3;; esac\n'
    (files.folder / f"{name}.json").write_text(json.dumps(answer))
    (files.folder / name).write_text(
        f'#!/bin/sh\n[ "$SECRET" = "it is" ] || exit 4\n{checks}'
        f'echo x >> {files.folder}/runs\ncat "$(dirname "$0")/{name}.json"\n'
    )
    (files.folder / name).chmod(0o755)
    environment = [{"name": "SECRET", "value": "it is"}]
    plugin = {"apiVersion": answer["apiVersion"], "command": f"./{name}", "env": environment, **fields}
    return {"exec": plugin | {"provideClusterInfo": True}}


def by_kubectl(environment: Mapping[str, str], flags: list[str]) -> Any:
    """Return server and user by kubectl; None if it refuses."""
    command = [str(binaries.path("kubectl")), "auth", "whoami", "-o", "json", "-v=6", *flags]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    if done.returncode:
        return None
    urls = re.findall(r'url="https?://([^/"]+)', done.stderr)
    return [urls[-1], json.loads(done.stdout)["status"]["userInfo"]]


def by_plugin(environment: Mapping[str, str], flags: list[str]) -> Any:
    """Return server and user by the plugin; its message if it refuses."""
    unset = dict.fromkeys({*os.environ} - {*environment})
    done = CliRunner().invoke(whoami, flags, prog_name="whoami", env=unset | dict(environment))
    if done.exit_code:
        assert done.exit_code == 2, done.output
        assert done.stderr.startswith("kubectl-reschedule: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr
    return json.loads(done.stdout)


def compare(files: Kubeconfigs, kubeconfig: str, *flags: str, **environment: str) -> Any:
    """Return server and user, which must be the same for kubectl and the plugin."""
    base = {"PATH": os.environ["PATH"], "HOME": str(files.folder / "home"), "KUBECONFIG": kubeconfig, **environment}
    expected = by_kubectl(base, list(flags))
    found = by_plugin(base, list(flags))
    if expected is None:
        assert isinstance(found, str), (flags, found)
        return found
    for each in (expected, found):
        each[1].get("extra", {}).pop("authentication.kubernetes.io/credential-id", None)
    assert found == expected
    return found


def _names_extension(files: Kubeconfigs) -> dict[str, Any]:
    return {"extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "main-cluster"}}]}


def test_each_kind_of_credentials_is_the_same_user(files: Kubeconfigs) -> None:
    config = files.write("all", files.entries(*ALL, current="admin", **_names_extension(files)))
    users = {name: compare(files, config, "--context", name)[1]["username"] for name in ALL}
    ann, admin = "system:serviceaccount:people:ann", users["admin"]
    assert users == dict.fromkeys(ALL, ann) | dict.fromkeys(("admin", "certificate-files", "exec-certificate"), admin)
    assert compare(files, config)[1]["username"] == admin
    runs = (files.folder / "runs").read_text().count("x")
    assert runs == 2 * 3  # kubectl and the plugin, once for each of the three users with a plugin only


def test_a_list_of_kubeconfigs_is_merged(files: Kubeconfigs) -> None:
    first = files.write("first", files.entries("token"))  # without a current context
    second = files.write("deep/second", files.entries("token-file", "token", current="token-file"))
    files.write("deep/token", files.token)
    other = files.entries("admin", current="admin", server="https://127.0.0.1:1")
    third = files.write("third", other)
    empty, missing = files.write("empty", ""), str(files.folder / "missing")
    nulls = files.write("nulls", "clusters: null\nusers:\ncontexts: []\n")
    for listed in (
        f":{second}:{third}",
        f"{empty}:{second}:{third}",
        f"{missing}:{nulls}::{first}:{second}:{third}",
    ):
        assert compare(files, listed)[0] == urlsplit(files.plane.server).netloc
    assert compare(files, f"{second}:{third}", "--context", "admin")[0] == urlsplit(files.plane.server).netloc
    assert "no current-context" in compare(files, first)
    assert "does not answer" in compare(files, f"{third}:{second}")
    assert compare(files, third, "--kubeconfig", second)[1]["username"].endswith("ann")
    assert "does not exist" in compare(files, second, "--kubeconfig", missing)
    files.write("home/.kube/config", files.entries("admin", current="admin"))
    assert compare(files, "")[1]["username"]
    assert "no kubeconfig is found in :" in compare(files, ":")


def test_flags_choose_cluster_user_and_whom_to_impersonate(files: Kubeconfigs) -> None:
    body = files.entries("admin", "token", "impersonates", current="token")
    body["clusters"].append({"name": "by-name", "cluster": files.cluster(server=_named(files, "localhost"))})
    config = files.write("flags", body)
    for flags in (
        ["--user", "admin"],
        ["--cluster", "by-name"],
        ["--user", "admin", "--as", "bob"],
        ["--user", "admin", "--as", "bob", "--as-group", "one", "--as-group", "two", "--as-uid", "17"],
        ["--user", "admin", "--as", "bøb"],
        ["--context", "impersonates"],
        ["--context", "impersonates", "--as", "eve"],
        ["--context", "impersonates", "--as-group", "c"],
        ["--request-timeout", "5s"],
        ["--request-timeout", "1m30s"],
    ):
        assert isinstance(compare(files, config, *flags), list), flags
    for flags in (
        ["--as", "bob"],  # forbidden
        ["--as-group", "one"],  # without a user
        ["--context", "nobody"],
        ["--user", "nobody"],
        ["--cluster", "nobody"],
    ):
        assert isinstance(compare(files, config, *flags), str), flags
    assert "forbidden" in compare(files, config, "--as", "bob")
    assert "the user nobody, named by --user, is not in" in compare(files, config, "--user", "nobody")


def _named(files: Kubeconfigs, host: str) -> str:
    return f"https://{host}:{urlsplit(files.plane.server).port}"


def test_proxies_and_server_names_are_used(files: Kubeconfigs) -> None:
    away, proxy = _named(files, "cluster.example"), f"127.0.0.1:{files.proxy.port}"
    named = {"server": away, "tls-server-name": "localhost"}
    insecure = {"server": away, "insecure-skip-tls-verify": True, "certificate-authority-data": None}
    cases: tuple[tuple[dict[str, Any], dict[str, str]], ...] = (
        (named | {"proxy-url": f"http://{proxy}"}, {}),
        (named | {"proxy-url": f"socks5://{proxy}"}, {}),
        (named, {"HTTPS_PROXY": f"http://ann:p%40ss@{proxy}"}),
        (named, {"https_proxy": proxy, "NO_PROXY": "other.example"}),
        (insecure | {"proxy-url": f"http://{proxy}"}, {}),
    )
    for number, (fields, environment) in enumerate(cases):
        config = files.write(f"proxied-{number}", files.entries("token", current="token", **fields))
        files.proxy.hosts.clear()
        assert isinstance(compare(files, config, **environment), list)
        assert set(files.proxy.hosts) == {"cluster.example"}
        assert len(files.proxy.hosts) == 2  # kubectl, and the plugin
    assert files.proxy.logins == ["Basic YW5uOnBAc3M="] * 2
    # Loopback addresses have no proxy of the environment, and the proxy may be switched off.
    config = files.write("direct", files.entries("token", current="token"))
    files.proxy.hosts.clear()
    assert isinstance(compare(files, config, HTTPS_PROXY=f"http://{proxy}"), list)
    assert files.proxy.hosts == []


def test_unsafe_connections_are_refused(files: Kubeconfigs) -> None:
    away, proxy = _named(files, "cluster.example"), f"http://127.0.0.1:{files.proxy.port}"
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"server": away, "proxy-url": proxy}, "not valid for"),
        ({"server": away, "proxy-url": "ftp://x"}, "proxy-url is ftp://x"),
        ({"certificate-authority-data": None}, "local issuer certificate"),
        ({"insecure-skip-tls-verify": True}, "exclude each other"),
        ({"certificate-authority-data": None, "certificate-authority": "none.crt"}, "none.crt"),
        ({"server": ""}, "clusters[main].cluster.server is missing"),
    )
    for number, (fields, word) in enumerate(cases):
        config = files.write(f"unsafe-{number}", files.entries("token", current="token", **fields))
        assert word in compare(files, config)
