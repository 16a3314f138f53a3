"""Applications of a folder: each subfolder and each file at its top is one."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from catalogue.entries import OWNER, merged

Document = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """Reads YAML as kubectl does: dates, and the value `=`, are strings."""


for _tag in ("value", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda loader, node: str(node.value))

_ENDINGS = (".yaml", ".yml", ".json")
_NO_SERVER = {
    "MutatingWebhookConfiguration": "no server runs behind a webhook",
    "ValidatingWebhookConfiguration": "no server runs behind a webhook",
    "APIService": "no server runs behind an aggregated API",
}
"""Kinds that break the control plane unless real containers answer, and why they are left out."""
_FIRST = ("Namespace", "CustomResourceDefinition")
_OWNERS = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController", "DaemonSet", "Job", "Pod")


@dataclass
class Application:
    """The objects of one application.

    Attributes:
        left_out: kind to the reason why its objects are not applied.
    """

    name: str
    documents: list[Document]
    left_out: dict[str, str] = field(default_factory=dict)

    def groups(self) -> tuple[list[Document], list[Document]]:
        """Return the objects that come first, because others need them, and all others."""
        first = [each for each in self.documents if each["kind"] in _FIRST]
        return first, [each for each in self.documents if each["kind"] not in _FIRST]

    def namespaces(self) -> list[str]:
        """Return the namespaces that pods may be in."""
        return sorted({namespace for each in self.documents if (namespace := each["metadata"].get("namespace"))})

    def leave_out(self, kinds: Collection[str], why: str) -> None:
        """Leave out the objects of these kinds."""
        self.left_out |= {each["kind"]: why for each in self.documents if each["kind"] in kinds}
        self.documents = [each for each in self.documents if each["kind"] not in kinds]


def applications(folder: Path) -> list[Application]:
    """Return the applications of a folder by name. Raises ValueError that names a file without valid YAML."""
    places = [path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix in _ENDINGS]
    return [found for path in places if (found := _application(path)).documents]


def _application(place: Path) -> Application:
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.suffix in _ENDINGS)
    documents = [each for file in files for each in _documents(file)]
    name = re.sub(r"[^a-z0-9]+", "-", place.stem.lower()).strip("-")
    made = Application(name, documents)
    for kind, why in _NO_SERVER.items():
        made.leave_out([kind], why)
    made.documents = [owned(each) for each in made.documents]
    return made


def _documents(file: Path) -> Iterator[Document]:
    try:
        found = list(yaml.load_all(file.read_text(), _Loader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    for each in found:
        yield from flat(each)


def flat(found: Any) -> Iterator[Document]:
    """Yield the objects of a document: itself, or the items of a list. Anything else is no object of Kubernetes."""
    if not isinstance(found, Mapping) or "kind" not in found or "apiVersion" not in found:
        return
    if str(found["kind"]).endswith("List") and isinstance(found.get("items"), list):
        kind = str(found["kind"]).removesuffix("List")
        for item in found["items"]:
            # The items of a typed list, such as a RoleList, may leave out what the list says.
            yield from flat({"apiVersion": found["apiVersion"], "kind": kind, **item})
    elif (found.get("metadata") or {}).get("name") and not str(found["apiVersion"]).startswith("kustomize.config"):
        yield dict(found)


def owner(kind: str, name: str) -> str:
    """Return a value for a label that names a workload."""
    return f"{kind.lower()}.{name}"[:63].rstrip("-_.")


def owned(made: Document) -> Document:
    """Return a workload whose pods have a label with its name; any other object as it is."""
    if made["kind"] not in _OWNERS:
        return made
    label = {"metadata": {"labels": {OWNER: owner(made["kind"], made["metadata"]["name"])}}}
    return merged(made, label if made["kind"] == "Pod" else {"spec": {"template": label}})


def placed(documents: Iterable[Document], namespaced: Mapping[tuple[str, str], bool], namespace: str) -> list[Document]:
    """Return the objects; those of a namespaced kind that name no namespace get this one."""
    return [
        merged(each, {"metadata": {"namespace": namespace}})
        if namespaced.get((each["apiVersion"], each["kind"])) and not each["metadata"].get("namespace")
        else each
        for each in documents
    ]
