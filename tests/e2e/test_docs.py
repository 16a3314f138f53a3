"""The commands and the objects of the pages, on a real API server."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from documented_commands import EXAMPLES, manifest, mark
from harness import ControlPlane, binaries, documents, site, workloads
from harness.operators import Operator, install
from harness.waiting import until

ROOT = documents.ROOT
BLOCKS = [b for page in site.tracked() if page.endswith(".md") for b in documents.read(page).blocks]
HERE = "tests/e2e/test_docs.py"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Yield a cluster with the objects that the pages name, and an operator."""
    with ControlPlane.start() as made:
        identity = install(made)
        made.add_nodes(3, prefix="n", labels={"team": "shop"})
        made.apply(workloads.namespace("shop"), workloads.namespace("shop-db"), workloads.policy("default"))
        made.apply(workloads.pool("shop", namespaces=["shop"], nodeSelector={"matchLabels": {"team": "shop"}}))
        made.apply(workloads.deployment("web", 2, "shop"), workloads.budget("db", "shop", minAvailable=1))
        made.apply(workloads.stateful_set("db", 2, "shop"))
        with Operator(identity, tmp_path_factory.mktemp("docs") / "operator.log"):
            until(lambda: "Ready" in json.dumps(made.get("nsp", "shop").get("status", {})), "the pool to have a status")
            yield made


@pytest.fixture(scope="module")
def programs(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment with kubectl and its plugin."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "kubectl").symlink_to(binaries.path("kubectl"))
    plugin = folder / "kubectl-reschedule"
    plugin.write_text(f"#!{sys.executable}\nfrom rescheduler.cli.plugin import main\n\nmain()\n")
    plugin.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "KUBECONFIG": str(plane.kubeconfig), "PYTHONPATH": "operator", "EDITOR": "true"}


def test_each_object_of_the_pages_is_accepted(plane: ControlPlane) -> None:
    samples = (ROOT / "manifests" / "samples").glob("*.yaml")
    found: list[tuple[str, Any]] = [(f.name, each) for f in samples for each in yaml.safe_load_all(f.read_text())]
    found += [(f"{b.page}:{b.line}", each) for b in BLOCKS for each in documents.objects(b)]
    refused = {}
    for place, each in found:
        if (wanted := manifest(each)) is not None:
            command = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
            said = plane.kubectl(*command, input=json.dumps(wanted), check=False)
            if "(server dry run)" not in said:
                refused[place] = said
    assert refused == {}


def test_each_command_of_the_pages_works(plane: ControlPlane, programs: dict[str, str]) -> None:
    """Run page by page; each page begins with a NodeDrain of n1. Deletions come last."""
    pages: dict[str, list[str]] = {}
    for block in BLOCKS:
        if found := [c for c in documents.commands(block) if mark(c) == HERE]:
            pages.setdefault(block.page, []).extend(found)
    failed: dict[str, str] = {}
    done: set[str] = set()

    def run(documented: str) -> None:
        command = re.sub(r" +# [^\n]*$", "", documented)
        if command not in done or " annotate " in command:
            shell = ["bash", "-o", "pipefail", "-c", command]
            found = subprocess.run(
                shell, cwd=ROOT, env=programs, capture_output=True, text=True, timeout=90, check=False
            )
            if found.returncode:
                failed[command] = found.stdout + found.stderr
        done.add(command)

    for commands in pages.values():
        until(lambda: _drained_by_hand(plane), "a NodeDrain for the node that the pages name")
        for command in commands:
            if "kubectl delete" not in command:
                run(_filled(command))
        plane.kubectl("annotate", "node", "--all", "rescheduler.dev/maintenance-")
    # As `rescheduler cleanup` does: without the operator, the finalizers would keep the CRDs.
    plane.kubectl("delete", "nodedrains", "--all")
    deletes = {c for commands in pages.values() for c in commands if "kubectl delete" in c}
    for command in sorted(deletes, key=lambda command: (" -f " in command, " -l " in command)):
        run(_filled(command))
    assert not failed, "\n".join(f"{command}: {said}" for command, said in failed.items())


def _drained_by_hand(plane: ControlPlane) -> bool:
    """Request the drain; return whether a NodeDrain is there that nobody has deleted."""
    spec = {"nodeName": "n1", "requests": [{"reason": "Manual", "message": "docs"}]}
    plane.apply(
        {"apiVersion": "rescheduler.dev/v1alpha1", "kind": "NodeDrain", "metadata": {"name": "n1"}, "spec": spec}
    )
    path = "jsonpath={.kind} {.metadata.deletionTimestamp}"
    return plane.kubectl("get", "nodedrain", "n1", "-o", path, check=False).strip() == "NodeDrain"


def _filled(command: str) -> str:
    """Return the command with examples for its placeholders."""
    for placeholder, example in EXAMPLES.items():
        command = command.replace(placeholder, example)
    return command
