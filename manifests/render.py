"""`manifests/install.yaml`: the chart with its defaults, for those without helm.

Its Namespace comes first; hooks are left out (applied, they would run), and so are the CRDs (one apply of both
finds no kind for the default policy). `--check` exits with 1 where the file differs.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
NAMESPACE = "rescheduler-system"
MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"


def render(helm: str) -> str:
    """The text of install.yaml."""
    command = [
        helm,
        "template",
        "rescheduler",
        str(HERE / "chart"),
        "--namespace",
        NAMESPACE,
        "--api-versions",
        MUTATING,
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own arguments
    documents = [
        d for d in yaml.safe_load_all(text) if d and "helm.sh/hook" not in d["metadata"].get("annotations", {})
    ]
    level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": level}}
    header = "# The chart with its defaults, made by `make manifests`; do not edit. Apply manifests/crds before it.\n"
    return header + yaml.safe_dump_all([space, *documents], sort_keys=False, width=160)


def main(arguments: list[str]) -> int:
    """Write or check."""
    helm = os.environ.get("HELM") or shutil.which("helm")
    if helm is None:
        sys.stderr.write("helm is not there: `make binaries` gets it\n")
        return 1
    target, text = HERE / "install.yaml", render(helm)
    if "--check" not in arguments:
        target.write_text(text)
    elif not target.is_file() or target.read_text() != text:
        sys.stderr.write(f"{target} differs from the chart: run `make manifests`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
