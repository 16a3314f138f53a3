"""The operator as a process: killed, started twice, disconnected, misconfigured."""

import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import Site
from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import NAMESPACE, Operator, install
from harness.waiting import until


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """Yield a control plane that these tests may damage."""
    with ControlPlane.start() as made:
        yield made


_COUNT = itertools.count(1)


@pytest.fixture
def own(plane: ControlPlane) -> Iterator[Site]:
    name = f"p{next(_COUNT)}"
    plane.apply(workloads.namespace(name))
    place = Site(plane, Observer(plane.kubeconfig), name)
    yield place
    for node in place.made:
        plane.kubectl("delete", "node", node)
    plane.kubectl("delete", "rsp", "--all")
    plane.kubectl("delete", "namespace", name, "--wait=false")


def run(kubeconfig: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rescheduler", "run", "--metrics-port=0", "--health-port=0"]
    environment = {**os.environ, "KUBECONFIG": kubeconfig, "HOME": "/nonexistent"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    return line


def test_a_wrong_kubeconfig_is_named(tmp_path: Path) -> None:
    assert "/no/such/file" in one_line(run("/no/such/file"))
    nonsense = tmp_path / "config"
    nonsense.write_text("not: a kubeconfig")
    assert str(nonsense) in one_line(run(str(nonsense)))


def test_an_api_server_that_does_not_answer_is_named(plane: ControlPlane, tmp_path: Path) -> None:
    away = tmp_path / "config"
    away.write_text(plane.kubeconfig.read_text().replace(plane.server, "https://127.0.0.1:1"))
    assert "https://127.0.0.1:1 does not answer" in one_line(run(str(away)))


def test_a_missing_verb_is_named(plane: ControlPlane) -> None:
    install(plane)
    plane.kubectl("create", "serviceaccount", "nobody", "-n", NAMESPACE)
    line = one_line(run(str(plane.identity_kubeconfig(NAMESPACE, "nobody"))))
    assert "create pods/eviction" in line
    assert "ClusterRole" in line


def test_a_port_that_is_taken_is_named(plane: ControlPlane) -> None:
    """A failure at the start of Kopf: the process must not end with 0."""
    identity = install(plane)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "rescheduler", "run", "--metrics-port=0", f"--health-port={port}"]
        environment = {**os.environ, "KUBECONFIG": str(identity)}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert not {"Traceback", "frames"} & set(ended.stderr.replace('"', " ").split())
    assert ended.stderr.splitlines()[-1].startswith("rescheduler: cannot listen: ")


def test_killed_and_restarted_it_goes_on_and_evicts_no_pod_twice(plane: ControlPlane, own: Site) -> None:
    identity, log = install(plane), plane.workdir / "killed.log"
    nodes = own.nodes(3)
    own.policy(drain={"replacement": "Never", "maxEvictionsPerSecond": 3})
    own.deploy(workloads.deployment("web", 18, own.name, **own.here()))
    there = {pod["metadata"]["uid"] for pod in own.observer.pods(own.name, node=nodes[0])}
    operator = Operator(identity, log).start()
    own.annotate(nodes[0])
    for _ in range(3):
        until(lambda: len(own.left(nodes[0])) < len(there), "a pod to leave")
        operator.kill()
        operator.start()
    own.phase(nodes[0], "Drained")
    evicted = [line for line in log.read_text().splitlines() if '"pod.evicted"' in line]
    assert len(evicted) <= len(there)
    drain = own.observer.drain(nodes[0])
    assert drain is not None
    assert drain["status"]["pods"]["moved"] == drain["status"]["pods"]["total"]
    operator.kill()
    own.annotate(nodes[0], None)
    operator.start()
    own.gone(nodes[0])
    assert "unschedulable" not in own.observer.node(nodes[0])["spec"]
    assert operator.stop() == 0


def test_a_second_replica_takes_over(plane: ControlPlane, own: Site) -> None:
    """At once if the first leader ends in order; after the Lease expires if it was killed."""
    identity = install(plane)
    nodes = own.nodes(2)
    own.policy()
    first = Operator(identity, plane.workdir / "first.log", identity="first").start()
    until(lambda: "leader.working" in first.log.read_text(), "the first to lead")
    second = Operator(identity, plane.workdir / "second.log", identity="second").start()
    assert "leader.working" not in second.log.read_text()
    first.kill()
    own.annotate(nodes[0])
    own.phase(nodes[0], "Drained")
    assert "leader.working" in second.log.read_text()
    third = Operator(identity, plane.workdir / "third.log", identity="third").start()
    second.stop()
    own.annotate(nodes[0], None)
    own.gone(nodes[0])
    third.stop()


def test_a_second_installation_reports_the_first_and_does_not_act(plane: ControlPlane, own: Site) -> None:
    """The cleanup of the second installation, run by `helm uninstall`, undoes nothing of the first one."""
    identity, second = install(plane), "second-system"
    plane.apply(workloads.namespace(second))
    nodes = own.nodes(2)
    own.policy()
    own.on_first(nodes[0], nodes[1:], workloads.deployment("web", 2, own.name, **own.here()))
    with Operator(identity, plane.workdir / "one.log", identity="one") as one:
        until(lambda: "leader.working" in one.log.read_text(), "the first to lead")
        two = Operator(plane.kubeconfig, plane.workdir / "two.log", identity="two", namespace=second)
        two.start(ready=False)
        until(lambda: '"installation.standby"' in two.log.read_text(), "the second to report the first")
        assert two.probe("readyz") == 503
        assert f"in namespace {NAMESPACE}, leads this cluster" in two.log.read_text()
        until(
            lambda: "OtherInstallation" in {e["reason"] for e in plane.get("events", "-n", second)["items"]},
            "the Event on the second's Lease",
        )
        own.annotate(nodes[0])
        own.phase(nodes[0], "Drained")
        assert two.stop() == 0
        assert '"leader.working"' not in two.log.read_text()
        assert one.probe("readyz") == 200
        command = [sys.executable, "-m", "rescheduler", "cleanup", "--namespace", second]
        environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "POD_NAME": "two-cleanup"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "cleanup.skipped" in ended.stderr
        assert own.observer.phase(nodes[0]) == "Drained"
        own.annotate(nodes[0], None)
        own.gone(nodes[0])


def test_its_own_pod_leaves_last_and_the_next_one_goes_on(plane: ControlPlane, own: Site) -> None:
    identity = install(plane)
    first, other = own.nodes(2)
    own.policy()
    rules = {"podSelector": {"matchLabels": {"app": "last"}}, "order": 2_000_000}
    own.patch("rsp", own.name, {"spec": {"drain": {"rules": [rules]}}})
    plane.kubectl("cordon", other)
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    restricted["seccompProfile"] = {"type": "RuntimeDefault"}
    containers = [{"name": "app", "image": "simulated", "securityContext": restricted}]
    plane.apply(workloads.deployment("ours", 1, NAMESPACE, containers=containers, **own.here()))

    def ours(node: str) -> list[str]:
        return [p["metadata"]["name"] for p in own.observer.pods(NAMESPACE, node=node)]

    (name,) = until(lambda: ours(first), "the operator's pod to be there")
    own.on_first(first, [other], workloads.deployment("last", 2, own.name, **own.here()))
    log, next_log = plane.workdir / "ours.log", plane.workdir / "next.log"
    operator = Operator(identity, log, identity=name).start()
    own.annotate(first)
    until(lambda: not ours(first), "its own pod to leave")
    assert operator.stop() == 0  # as a kubelet does: the next one leads at once
    gone = [json.loads(line)["pod"] for line in log.read_text().splitlines() if '"pod.evicted"' in line]
    assert len(gone) == 3
    assert gone[-1] == f"{NAMESPACE}/{name}"
    with Operator(identity, next_log, identity=ours(other)[0]):
        own.phase(first, "Drained")
        assert '"pod.evicted"' not in next_log.read_text()
        own.annotate(first, None)
        own.gone(first)
    plane.kubectl("delete", "deploy", "ours", "-n", NAMESPACE)


def test_an_api_server_that_is_away_ends_nothing(plane: ControlPlane, own: Site) -> None:
    identity = install(plane)
    nodes = own.nodes(3)
    own.policy(drain={"replacement": "Never", "maxEvictionsPerSecond": 2})
    own.deploy(workloads.deployment("web", 15, own.name, **own.here()))
    with Operator(identity, plane.workdir / "away.log") as operator:
        own.annotate(nodes[0])
        until(lambda: own.observer.phase(nodes[0]) == "Draining", "the drain to begin")
        plane.stop_apiserver()
        # Away for longer than the Lease lasts: it stops working, and does not end.
        until(lambda: '"leader.lost"' in operator.log.read_text(), "the Lease to run out")
        plane.start_apiserver()
        own.phase(nodes[0], "Drained", seconds=90)
        own.annotate(nodes[0], None)
        own.gone(nodes[0])


def test_every_line_of_the_log_is_json_kopfs_own_among_them(plane: ControlPlane) -> None:
    identity, log = install(plane), plane.workdir / "lines.log"
    with Operator(identity, log) as operator:
        until(lambda: "leader.working" in log.read_text(), "the operator to lead")
        assert operator.probe("healthz") == 200
        assert 'leader_election_master_status{name="rescheduler"} 1.0' in operator.metrics()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"event", "level", "timestamp", "logger"} <= events[0].keys()


_SPACES = 30


def connections(operator: Operator, server: str) -> int:
    """Return the number of the process's connections to the API server."""
    ours = set[str]()
    for link in Path(f"/proc/{operator.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            ours.add(str(link.readlink()))
    port = f":{int(server.rsplit(':', 1)[1]):04X}"
    rows = [line.split() for line in Path(f"/proc/{operator.pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(port) and row[3] == "01" and f"socket:[{row[9]}]" in ours for row in rows)


@pytest.fixture
def few_files() -> Iterator[None]:
    """Return the number of open files that container runtimes allow by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_over_many_namespaces_it_has_few_connections_and_drains_two_nodes(plane: ControlPlane, own: Site) -> None:
    identity = install(plane)
    nodes = own.nodes(4)
    own.policy(maintenance={"maxConcurrent": 2})
    spaces = [f"{own.name}-{number}" for number in range(_SPACES)]
    plane.kubectl("cordon", *nodes[2:])
    plane.apply(*map(workloads.namespace, spaces))
    # Two replicas, one on each drained node: each node has pods of all namespaces.
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
    spread = {"topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", **apart}]}
    plane.apply(
        *(workloads.deployment("web", 2, space, **own.here(), **spread) for space in spaces),
        *(workloads.budget("web", space, maxUnavailable=1) for space in spaces),
    )
    ready = "-o=jsonpath={range .items[*]}{.status.readyReplicas}{end}"
    until(lambda: plane.kubectl("get", "deploy", "-A", ready).count("2") == _SPACES, "all pods to run", seconds=120)
    plane.kubectl("uncordon", *nodes[2:])
    most = 0

    def drained() -> bool:
        nonlocal most
        most = max(most, connections(operator, plane.server))
        return all(own.observer.phase(node) == "Drained" for node in nodes[:2])

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Operator(identity, plane.workdir / "many.log") as operator:
        assert "Max open files" in (limits := Path(f"/proc/{operator.pid}/limits").read_text())
        assert int(limits.split("Max open files")[1].split()[0]) == min(hard, 65_536)
        began = time.monotonic()
        plane.kubectl("annotate", "node", *nodes[:2], "rescheduler.dev/maintenance=test")
        until(drained, lambda: f"both to be Drained ({most} connections; {operator.tail()})", seconds=180)
        print(f"{_SPACES} namespaces: {most} connections, {time.monotonic() - began:.0f} s")
        assert most <= 64
        log = operator.log.read_text()
        assert "leader.lost" not in log
        assert "Too many open files" not in log
        for node in nodes[:2]:
            own.annotate(node, None)
        for node in nodes[:2]:
            own.gone(node)
    plane.kubectl("delete", "namespace", *spaces, "--wait=false")


def test_ctrl_c_ends_it_in_order(plane: ControlPlane) -> None:
    """The Lease is released: the next operator leads at once."""
    identity, log = install(plane), plane.workdir / "interrupted.log"
    operator = Operator(identity, log).start()
    until(lambda: "leader.working" in log.read_text(), "the operator to lead")
    os.kill(operator.pid, signal.SIGINT)
    until(lambda: not operator.running, "the operator to end")
    assert operator.stop() == 0
    assert "Traceback" not in log.read_text()
    lease = plane.get("lease", "rescheduler", "-n", NAMESPACE)
    assert not lease["spec"].get("holderIdentity")


KINDS = ("nodedrains", "reschedulepolicies", "namespacepools")


def delete_crds(plane: ControlPlane, *kinds: str) -> None:
    plane.kubectl("delete", "crd", *(f"{kind}.rescheduler.dev" for kind in kinds), "--timeout=60s")


@pytest.mark.parametrize("kinds", [("namespacepools",), ("reschedulepolicies",), KINDS], ids=",".join)
def test_deleting_crds_in_the_middle_of_a_drain_ends_no_process(
    plane: ControlPlane, own: Site, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    """Without pools the drain continues; without policies or NodeDrains it returns released pods."""
    identity = install(plane)
    first, other = own.nodes(2)
    own.policy()
    own.on_first(first, [other], workloads.deployment("web", 2, own.name, **own.here()))
    uids = own.uids()
    with Operator(identity, tmp_path / "operator.log") as operator:
        own.release_one(first, [other])
        delete_crds(plane, *kinds)
        until(lambda: operator.probe("readyz") == 503, "the operator to say that it is not ready")
        if kinds == ("namespacepools",):
            assert own.observer.phase(first) == "Draining"
            assert own.released()
        else:
            until(lambda: own.uids() == uids and not own.released(), "the pods to be given back")
        cordoned = own.observer.node(first)["spec"].get("unschedulable", False)
        assert cordoned is ("nodedrains" not in kinds)
        install(plane)
        until(lambda: operator.probe("readyz") == 200, "the operator to be ready again")
        plane.kubectl("uncordon", other)
        if "reschedulepolicies" in kinds:
            own.policy()
        if "nodedrains" in kinds:
            own.annotate(first, "again")  # the previous request was cancelled with its NodeDrain
        own.phase(first, "Drained")
        assert operator.running
    assert "Traceback" not in operator.log.read_text()


def test_without_crds_it_gives_back_what_is_left_and_begins_when_they_are_there(
    plane: ControlPlane, own: Site, tmp_path: Path
) -> None:
    identity = install(plane)
    first, other = own.nodes(2)
    own.policy()
    own.on_first(first, [other], workloads.deployment("web", 2, own.name, **own.here()))
    uids, operator = own.uids(), Operator(identity, tmp_path / "operator.log").start()
    own.release_one(first, [other])
    own.annotate(other)
    until(lambda: "rescheduler.dev/drain" in keys(own, other), "the other node to wait for its turn")
    operator.kill()
    for node in (first, other):
        own.patch("nd", node, {"metadata": {"finalizers": None}})
    delete_crds(plane, *KINDS)
    assert own.released()
    try:
        operator.start(ready=False)
        until(lambda: own.uids() == uids and not own.released(), "the pods to be given back")
        until(lambda: not conditions(own, first), "our conditions to go")
        until(lambda: keys(own, other) <= {"node.kubernetes.io/unschedulable"}, "our taint to go")
        assert operator.probe("healthz") == 200
        assert operator.probe("readyz") == 503

        def missing() -> list[dict[str, str]]:
            lines = [json.loads(line) for line in operator.log.read_text().splitlines()]
            return [line for line in lines if line["event"] == "kind.not_installed"]

        until(lambda: {line["kind"] for line in missing()} == set(KINDS), "each kind to be missed")
        assert len(missing()) == len(KINDS)
        assert "kubectl apply -f manifests/crds" in missing()[0]["hint"]
        until(lambda: "LeftCordoned" in reasons(own, first), "the word that nobody knows who had cordoned the node")
        own.annotate(other, None)  # otherwise it may start first, and leave no room
        install(plane)
        own.policy()
        plane.kubectl("uncordon", other)
        own.phase(first, "Drained")
    finally:
        operator.stop()
    assert "Traceback" not in operator.log.read_text()


def serve(plane: ControlPlane, *, served: bool) -> None:
    """Let the CRDs serve the operator's version, or not: then its requests get a 404, although the objects exist."""
    change = [{"op": "replace", "path": "/spec/versions/0/served", "value": served}]
    for kind in KINDS:
        plane.kubectl("patch", "crd", f"{kind}.rescheduler.dev", "--type=json", "-p", json.dumps(change))


def test_crds_that_do_not_serve_its_version_stop_it_and_undo_nothing(
    plane: ControlPlane, own: Site, tmp_path: Path
) -> None:
    identity = install(plane)
    first, other = own.nodes(2)
    own.policy()
    own.on_first(first, [other], workloads.deployment("web", 2, own.name, **own.here()))

    def not_served(operator: Operator) -> set[str]:
        lines = [json.loads(line) for line in operator.log.read_text().splitlines()]
        return {line["kind"] for line in lines if line["event"] == "kind.not_served"}

    with Operator(identity, tmp_path / "operator.log") as operator:
        own.release_one(first, [other])
        uids = own.uids()
        serve(plane, served=False)
        until(lambda: not_served(operator) == set(KINDS), "each kind to be missed")
        assert operator.probe("readyz") == 503
        plane.kubectl("uncordon", other)
        until(lambda: own.observer.ready(own.name, "web") == 3, "the replacement to be Ready")
        another = Operator(identity, tmp_path / "another.log", identity="operator-1").start(ready=False)
        until(lambda: not_served(another), "a process that starts to say so")
        assert (another.probe("healthz"), another.probe("readyz"), another.running) == (200, 503, True)
        assert another.stop() == 0
        assert own.released()
        assert own.uids() >= uids
        assert own.observer.node(first)["spec"]["unschedulable"]
        serve(plane, served=True)
        own.phase(first, "Drained")
    assert "Traceback" not in operator.log.read_text()


def conditions(own: Site, node: str) -> set[str]:
    ours = {"DrainInProgress", "Drained", "MaintenanceInProgress"}
    return ours & {condition["type"] for condition in own.observer.node(node)["status"]["conditions"]}


def keys(own: Site, node: str) -> set[str]:
    return {taint["key"] for taint in own.observer.node(node)["spec"].get("taints", [])}


def reasons(own: Site, node: str) -> set[str]:
    return {event["reason"] for event in own.observer.events("Node", node)}
