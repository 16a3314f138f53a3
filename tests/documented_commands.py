"""Who runs the commands of the pages.

`tests/e2e/test_docs.py` runs each command that begins with `kubectl`, and applies each object. A row is for all others:
the test that runs it, or why nothing runs it.
"""

import re
from typing import Any

from rescheduler.api import GROUP

MARKED: tuple[tuple[str, str], ...] = (
    (r"helm install rescheduler manifests/chart -n", "tests/e2e/test_chart.py"),
    (r"helm uninstall rescheduler -n", "tests/e2e/test_chart.py"),
    (r"helm upgrade rescheduler manifests/chart -n", "tests/e2e/test_chart.py"),
    (r"helm test ", "tests/e2e/test_chart.py"),
    (r"helm template ", "tests/e2e/test_chart.py"),
    (r"helm rollback rescheduler -n", "tests/e2e/test_upgrade.py"),
    (r"rescheduler cleanup\b", "tests/e2e/test_uninstall.py"),
    (r"rescheduler migrate-storage\b", "tests/e2e/test_upgrade.py"),
    (r"VERSION=|cosign |gh ", "not run: needs a published release"),
    (r"kubectl reschedule completion", "not run: writes into the reader's home"),
    (r"kubectl (?s:.*)\| *jq\b", "not run: jq may be missing, and the examples have dates of their own"),
    (r"source |chmod |jq ", "not run: changes the reader's shell, or reads the output of another command"),
    (r"make (demo|test|lint|bench|docs)\b", "not run: each is a run of its own; CI runs make lint and make test"),
    (r"make cluster\b", "not run: the tests start the same control plane"),
    (r"make cluster-down", "not run: the tests start the same control plane"),
    (r"make image|docker |kind ", "not run: needs a container engine; tests/unit/harness/image has its parts"),
    (r"make test-manifests", "not run: needs manifests of others"),
    (r"make audit", "not run: needs a service of PyPI"),
    (r"pip install", "not run: make test installs the package in the same way"),
    (r"python3 -m http.server", "not run: never ends"),
    (r"ssh |until ", "not run: needs a machine to reboot"),
    (r"node=|uid=|boot=|fence_ipmilan", "not run: needs a machine to power off"),
    (r"kubectl delete crd ", "tests/e2e/test_uninstall.py"),
    (r"kubectl .* (-w|--watch)\b", "not run: never ends"),
    (r"kubectl (logs|exec|port-forward)\b", "not run: needs containers, and the kubelets of the tests are simulated"),
)
"""Patterns of commands, matched from the start. The first match counts."""

DIAGRAMS = ("operator/rescheduler/", "annotation, node condition", "Ready pods of", "(Ready pods of", "Node, policy, ")
"""How blocks without a language begin that are neither commands nor YAML nor a session."""
OUTPUT = ("NODE ", "status:")
"""How blocks begin that a program prints."""
FRAGMENTS = {"maintenance": (), "failure": (), "drain": (), "rebalance": (), "rules": ("drain",)}
"""First key of a part of a ReschedulePolicy, and where in `spec` the part belongs."""
OF_OTHERS = ("argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "source.toolkit.fluxcd.io/")
"""API groups whose objects the pages show, and which no control plane of the tests has."""
EXAMPLES = {"NAMESPACE": "shop", "NODE": "n1", "POD": "db-0", "NAME": "db"}
"""What the tests write for a placeholder."""


def mark(command: str) -> str | None:
    """Return the test that runs a command, or why nothing runs it; None for an unknown command."""
    found = next((where for pattern, where in MARKED if re.match(pattern, command)), None)
    return found or ("tests/e2e/test_docs.py" if command.startswith("kubectl ") else None)


def manifest(found: Any) -> dict[str, Any] | None:
    """Return the object that a YAML example is, or is a part of; None for an object that no test can apply."""
    first = next(iter(found), "") if isinstance(found, dict) else ""
    if first in FRAGMENTS:
        spec: dict[str, Any] = found
        for key in reversed(FRAGMENTS[first]):
            spec = {key: spec}
        return {
            "apiVersion": f"{GROUP}/v1beta1",
            "kind": "ReschedulePolicy",
            "metadata": {"name": "part"},
            "spec": spec,
        }
    if not isinstance(found, dict) or "apiVersion" not in found or found["apiVersion"].startswith(OF_OTHERS):
        return None
    return found
