"""Rights of the chart's ServiceAccounts that no test used: remove each one, or test it.

`make test` names a folder in RIGHTS_USED. At its end every control plane of the tests adds the rights of its audit log
to the folder. Then `python -m harness rights FOLDER` compares them with the rights that the manifests grant.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = "RIGHTS_USED"
"""Environment variable: the folder for used rights."""
ACCOUNTS = (
    "system:serviceaccount:rescheduler-system:rescheduler",
    "system:serviceaccount:rescheduler-system:rescheduler-cleanup",
)

_PROGRAM = ("rescheduler", "kopf")
"""Prefixes of the operator's user agents; tests use its accounts too, and their requests prove no need."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """A verb on a resource; in a granted right an empty namespace or name matches any."""

    group: str
    resource: str
    verb: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        place = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group} {self.name}".rstrip() + place

    def covers(self, used: "Right") -> bool:
        """Whether the request needed this granted right."""
        same = (self.group, self.resource, self.verb) == (used.group, used.resource, used.verb)
        return same and self.namespace in ("", used.namespace) and self.name in ("", used.name)


def granted(documents: Iterable[Mapping[str, Any]]) -> set[Right]:
    """Return rights that the roles among these documents grant."""
    return {
        Right(group, resource, verb, document["metadata"].get("namespace", ""), name)
        for document in documents
        if document["kind"] in ("ClusterRole", "Role")
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def used(audit_log: Iterable[str]) -> set[Right]:
    """Return rights of authorized requests under the chart's accounts, from lines of an audit log."""
    found: set[Right] = set()
    for line in audit_log:
        if not any(account in line for account in ACCOUNTS):
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the API server was killed while it wrote this line
        allowed = event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow"
        reference = event.get("objectRef")
        by_test = not event.get("userAgent", "").startswith(_PROGRAM)
        if event["user"]["username"] in ACCOUNTS and allowed and reference and not by_test:
            resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
            place = reference.get("namespace", ""), reference.get("name", "")
            found.add(Right(reference.get("apiGroup", ""), resource, event["verb"], *place))
    return found


def keep(name: str, audit_log: Path) -> None:
    """Add rights of this log to the folder of RIGHTS_USED, if there is one."""
    folder = os.environ.get(FOLDER)
    if not folder or not audit_log.is_file():
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with audit_log.open() as lines:
        # Keep names only for rights that are granted by name: the names of all pods would fill the folder.
        named = {(r.group, r.resource) for r in manifests() if r.name}
        rows = {
            (r.group, r.resource, r.verb, r.namespace, r.name if (r.group, r.resource) in named else "")
            for r in used(lines)
        }
    (Path(folder) / f"{name}.json").write_text(json.dumps(sorted(rows)))


def manifests() -> set[Right]:
    """Return rights that `manifests/install.yaml` grants."""
    return granted(d for d in yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))


def unused(folder: Path) -> list[Right]:
    """Return rights of the manifests that no request in the folder used."""
    found = {Right(*row) for file in folder.glob("*.json") for row in json.loads(file.read_text())}
    return sorted(right for right in manifests() if not any(right.covers(one) for one in found))
