"""`kubectl reschedule drain` and `cancel`, as people call them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.conftest import Site
from e2e.test_plans import reschedule
from harness import ControlPlane, binaries, workloads
from harness.operators import install
from harness.waiting import until


class Following:
    """A running `kubectl reschedule drain`."""

    def __init__(self, kubeconfig: Path, folder: Path, *arguments: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        # A background process of a shell ignores Ctrl-C, and these tests may run in the background.
        code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        code += "from rescheduler.cli.plugin import main; main()"
        command = [sys.executable, "-c", code, "drain", *arguments]
        environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": "operator"}
        with self._out.open("w") as out, self._err.open("w") as err:
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)

    @property
    def said(self) -> str:
        return self._out.read_text()

    @property
    def warned(self) -> str:
        return self._err.read_text()

    def says(self, *words: str) -> None:
        until(lambda: all(word in self.said + self.warned for word in words), lambda: f"{words} in {self.said}")

    def end(self, *, interrupt: bool = False) -> int:
        """Wait for the end; return the exit code."""
        if interrupt:
            self._process.send_signal(signal.SIGINT)
        return self._process.wait(60)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def following(kubeconfig: Path, folder: Path, *arguments: str) -> Iterator[Following]:
    found = Following(kubeconfig, folder, *arguments)
    try:
        yield found
    finally:
        found.close()


def test_a_drain_by_hand_is_followed_to_its_end_and_withdrawn(site: Site, tmp_path: Path) -> None:
    first, *others = site.nodes(2)
    site.policy()
    db = workloads.stateful_set("db", 1, site.name, **site.here())
    web = workloads.deployment("web", 2, site.name, **site.here())
    site.on_first(first, others, db, web, workloads.budget("db", site.name, minAvailable=1))
    with following(site.plane.kubeconfig, tmp_path, first, "-m", "swap disk") as drain:
        drain.says(f"{first}: drain requested", f"{site.name}/db-0 cannot leave: BudgetMisconfigured", "2/3 moved")
        assert (site.observer.drain(first) or {})["spec"]["requests"] == [{"reason": "Manual", "message": "swap disk"}]
        site.plane.kubectl("delete", "pdb", "db", "-n", site.name)
        assert drain.end() == 0
        assert drain.said.splitlines()[-1] == f"{first}: Drained, 3/3 moved"
        assert drain.said.count("cannot leave") == 1
        assert f"kubectl reschedule cancel {first}" in drain.warned
    again = reschedule(site.plane.kubeconfig, "drain", first)
    assert again.returncode == 0
    assert "already requested: Manual (swap disk)" in again.stdout
    assert reschedule(site.plane.kubeconfig, "cancel", first).returncode == 0
    site.gone(first)
    assert not site.plane.get("node", first)["spec"].get("unschedulable")
    found = reschedule(site.plane.kubeconfig, "cancel", first)
    assert (found.returncode, found.stdout) == (0, f"{first}: no drain is requested\n")


def test_who_stops_following_stops_nothing_and_a_withdrawn_drain_is_no_success(site: Site, tmp_path: Path) -> None:
    (first,) = site.nodes(1)  # without a policy, so that it waits
    with following(site.plane.kubeconfig, tmp_path, first) as drain:
        drain.says("Waiting (NoPolicy: no ReschedulePolicy selects this node")
        assert drain.end(interrupt=True) == 130
        assert "the drain continues" in drain.warned
        assert f"kubectl reschedule cancel {first}" in drain.warned
        assert "Traceback" not in drain.warned
    with following(site.plane.kubeconfig, tmp_path, first) as drain:
        drain.says("Waiting (NoPolicy")
        assert "withdrawn (Manual)" in reschedule(site.plane.kubeconfig, "cancel", first).stdout
        assert drain.end() == 1
        assert "withdrawn before" in drain.warned


def test_a_request_by_hand_stands_beside_another_and_cancel_withdraws_both(site: Site) -> None:
    first, _ = site.nodes(2)
    site.policy()
    site.annotate(first, "firmware")
    site.phase(first, "Drained")
    found = reschedule(site.plane.kubeconfig, "drain", first, "--no-wait", "-m", "disk")
    assert (found.returncode, found.stderr) == (0, "")
    assert "other requests: Maintenance (firmware)" in found.stdout
    asked = (site.observer.drain(first) or {})["spec"]["requests"]
    assert {(each["reason"], each["message"]) for each in asked} == {("Maintenance", "firmware"), ("Manual", "disk")}
    assert reschedule(site.plane.kubeconfig, "cancel", first).returncode == 0
    site.gone(first)
    node = site.plane.get("node", first)
    assert "rescheduler.dev/maintenance" not in node["metadata"].get("annotations", {})
    assert not node["spec"].get("unschedulable")


def test_several_nodes_are_drained_in_the_order_of_the_policy_and_withdrawn(site: Site) -> None:
    first, second, _ = site.nodes(3)
    site.policy(maintenance={"maxConcurrent": 1})
    found = reschedule(site.plane.kubeconfig, "drain", first, second, "--timeout", "50s")
    assert (found.returncode, found.stderr.count("restore the nodes after the work")) == (0, 1), found.stderr
    assert f"kubectl reschedule cancel {first} {second}" in found.stderr
    lines = found.stdout.splitlines()
    drained = [next(n for n, line in enumerate(lines) if f"{node}: Drained" in line) for node in (first, second)]
    assert drained == sorted(drained)
    assert f"{second}: Waiting (MaxConcurrent: maintenance.maxConcurrent 1 is taken by {first})" in found.stdout
    selected = reschedule(site.plane.kubeconfig, "drain", "-l", f"kubernetes.io/hostname={first}", "--no-wait")
    assert f"{first}: drain already requested: Manual" in selected.stdout
    withdrawn = reschedule(site.plane.kubeconfig, "cancel", "no-such-node", first, second)
    assert (withdrawn.returncode, withdrawn.stderr.count("\n")) == (2, 1)
    assert withdrawn.stdout.count("every request is withdrawn") == 2
    site.gone(first)
    site.gone(second)


def test_a_drain_that_takes_longer_than_its_timeout_continues(site: Site) -> None:
    (first,) = site.nodes(1)  # without a policy, so that it waits
    found = reschedule(site.plane.kubeconfig, "drain", first, "--timeout", "3s")
    assert found.returncode == 1
    assert f"{first}: not Drained within 3s; the drain continues" in found.stderr
    assert site.observer.drain(first)


def test_a_node_that_somebody_else_cordoned_is_left_alone(site: Site) -> None:
    (first,) = site.nodes(1)
    site.plane.kubectl("cordon", first)
    found = reschedule(site.plane.kubeconfig, "cancel", first)
    assert found.returncode == 0
    assert f"the node is cordoned, but not by Rescheduler: kubectl uncordon {first}" in found.stdout
    assert site.plane.get("node", first)["spec"]["unschedulable"]


def test_a_gate_is_shown_approved_and_the_drain_begins(site: Site) -> None:
    first, _ = site.nodes(2)
    gates = ["example.com/approved", "example.com/backup"]
    site.policy(drain={"gates": gates})
    kubeconfig = site.plane.kubeconfig
    assert reschedule(kubeconfig, "drain", first, "--no-wait").returncode == 0
    until(lambda: "Gated" in reschedule(kubeconfig, "status").stdout, "the drain to wait for its gates")
    shown = reschedule(kubeconfig, "status").stdout
    assert f"kubectl reschedule approve {first} GATE" in shown
    assert f"nodedrain.rescheduler.dev/{first}\n" in reschedule(kubeconfig, "status", "-o", "name").stdout
    wrong = reschedule(kubeconfig, "approve", first, "example.com/other")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert f"its gates are {', '.join(gates)}" in wrong.stderr
    for gate in gates:
        found = reschedule(kubeconfig, "approve", first, gate, "-m", "backup is done")
        assert (found.returncode, found.stdout) == (0, f"{first}: {gate} is approved\n"), found.stderr
    assert "already approved" in reschedule(kubeconfig, "approve", first, gates[0]).stdout
    conditions = {each["type"]: each for each in (site.observer.drain(first) or {})["status"]["conditions"]}
    assert [conditions[gate]["status"] for gate in gates] == ["True", "True"]
    assert conditions[gates[0]]["message"].endswith(": backup is done")
    assert conditions[gates[0]]["message"].startswith("approved by ")
    site.phase(first, "Drained")


def test_kubectl_and_bash_complete_names_of_nodes_and_change_nothing(site: Site, tmp_path: Path) -> None:
    first, second = site.nodes(2)
    for name, function in (("kubectl-reschedule", "run"), ("kubectl_complete-reschedule", "answer_kubectl")):
        program = f"#!{sys.executable}\nfrom rescheduler.cli.plugin import {function}\n{function}()\n"
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{binaries.path('kubectl').parent}:{os.environ['PATH']}"
    operator = str(Path(__file__).parents[2] / "operator")
    environment = os.environ | {"KUBECONFIG": str(site.plane.kubeconfig), "PATH": path, "PYTHONPATH": operator}

    def output(*command: str) -> list[str]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.split()

    prefix = first.removesuffix("1")
    assert output("kubectl", "__complete", "reschedule", "drain", prefix) == [first, second, ":4"]
    assert output("kubectl", "__complete", "reschedule", "drain", "--no-wait", first, prefix) == [second, ":4"]
    assert output("kubectl", "__complete", "reschedule", "cancel", prefix) == [":4"]  # no drain is requested
    words = f"COMP_WORDS=(kubectl-reschedule drain {prefix}) COMP_CWORD=2"
    complete = '_kubectl_reschedule_completion kubectl-reschedule; echo "${COMPREPLY[@]}"'
    script = f". <(kubectl reschedule completion bash); {words}; {complete}"
    assert output("bash", "-c", script) == [first, second]
    assert site.observer.drain(first) is None


def test_versions_of_operator_and_crds_are_read(site: Site) -> None:
    found = json.loads(reschedule(site.plane.kubeconfig, "version", "-o", "json").stdout)
    assert [operator["leader"] != "" for operator in found["operators"]] == [True]
    assert [(crd["served"], crd["missingFields"]) for crd in found["crds"]] == [(["v1alpha1", "v1beta1"], [])] * 3
    nobody = reschedule(site.plane.identity_kubeconfig("default", "default"), "version")
    assert nobody.returncode == 0
    assert nobody.stdout.startswith("plugin: ")
    assert "forbidden" in nobody.stderr


def test_what_cannot_be_done_is_one_line(site: Site) -> None:
    (first,) = site.nodes(1)
    nobody = site.plane.identity_kubeconfig("default", "default")
    for kubeconfig, command, node, word in (
        (site.plane.kubeconfig, "drain", "no-such-node", "node no-such-node does not exist"),
        (site.plane.kubeconfig, "drain", "--selector=no=such", "no node has the labels no=such"),
        (site.plane.kubeconfig, "cancel", "no-such-node", "node no-such-node does not exist"),
        (nobody, "drain", first, "forbidden"),
        (nobody, "cancel", first, "forbidden"),
        (nobody, "status", "", "forbidden"),
    ):
        found = reschedule(kubeconfig, command, *filter(None, (node,)))
        assert (found.returncode, found.stdout) == (2, "")
        assert word in found.stderr
        assert found.stderr.count("\n") == 1, found.stderr
    assert site.observer.drain(first) is None


@pytest.fixture(scope="module")
def idle() -> Iterator[ControlPlane]:
    """Without an operator on the control plane."""
    with ControlPlane.start() as plane:
        yield plane


def test_without_crds_or_operator_it_says_so(idle: ControlPlane, tmp_path: Path) -> None:
    (node,) = idle.add_nodes(1, prefix="idle-n")
    for command in ("drain", "status"):
        found = reschedule(idle.kubeconfig, command, *([node] if command == "drain" else []))
        assert found.returncode == 2
        assert "kubectl apply -f manifests/crds" in found.stderr
        assert found.stderr.count("\n") == 1, found.stderr
    assert "no drain is requested" in reschedule(idle.kubeconfig, "cancel", node).stdout
    install(idle)
    with following(idle.kubeconfig, tmp_path, node) as drain:
        drain.says(f"{node}: waiting for the operator", "no operator is running")
        assert drain.end(interrupt=True) == 130
