"""Read the files of a report, with the rights of the user. What cannot be read is named, and costs only itself."""

import contextlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rescheduler.api import API_VERSION, GROUP
from rescheduler.cli.check import presentation
from rescheduler.cli.check.cluster_facts import read_cluster_facts
from rescheduler.cli.check.installation import RESOURCES
from rescheduler.cli.cluster_api import ApiUnavailableError, ClusterApi, PluginError, raise_for_error
from rescheduler.cli.operator_namespace import INSTALLATION_LEASE, read_operator_namespace
from rescheduler.cli.report import messages, redaction
from rescheduler.cli.report.redaction import Redactor
from rescheduler.core.model.raw import RawObject

OPERATOR_SELECTOR = "app.kubernetes.io/name=rescheduler"
_MAX_OBJECTS = 5000
"""A list in the report has at most this many objects, so that a report of a large cluster can be sent."""
_MAX_LOG_LINES, _MAX_LOG_BYTES = 50_000, 20 * 2**20
_METRICS_PORT = "8080"
_MAX_NAME_LENGTH = 120
_NODE_KINDS = ("Node", "ReschedulePolicy", "NamespacePool", "NodeDrain")
_WIDTH = 110


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A file of the report. `name`: its path in the zip."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """The files of a report, and what could not be read."""

    files: tuple[ReportFile, ...]
    missing: tuple[str, ...]


def read_report(api: ClusterApi, namespace: str | None) -> Report:
    """Read a report. `namespace`: of the operator; None finds it. Raises ApiUnavailableError."""
    reader = _Reader(api)
    found = namespace or read_operator_namespace(api)
    reader.read_check()
    reader.read_own_kinds()
    drained = reader.drained_nodes()
    reader.add_list("nodes", "v1", "nodes", redaction.redact_node)
    reader.add_list("poddisruptionbudgets", "policy/v1", "poddisruptionbudgets", redaction.redact_own_kind)
    moved = reader.read_drained_pods(drained)
    reader.read_events(moved)
    reader.read_operator(found)
    return Report(tuple(reader.files), tuple(reader.missing))


def safe_name(text: str) -> str:
    """Return a name of others as the name of a file: without a path, and with letters that any system allows."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:_MAX_NAME_LENGTH].strip(".")
    return name or "_"


class _Reader:
    """Collects the files of a report."""

    def __init__(self, api: ClusterApi) -> None:
        self._api = api
        self.files: list[ReportFile] = []
        self.missing: list[str] = []
        self._drains: Sequence[RawObject] = ()

    def read_check(self) -> None:
        """Add the versions and the findings of a check."""
        with self._noted():
            facts = read_cluster_facts(self._api)
            findings = facts.findings()
            result = presentation.as_json(facts, findings)
            self._add_json("versions.json", result["versions"])
            self._add_json("check.json", result)
            self._add_text("check.txt", "\n".join(presentation.as_text(facts, findings, _WIDTH)) + "\n")

    def read_own_kinds(self) -> None:
        """Add the policies, pools and NodeDrains, and their CRDs."""
        if not self._is_installed():
            return
        for resource in RESOURCES:
            rows = self.add_list(resource, API_VERSION, resource, redaction.redact_own_kind)
            if resource == "nodedrains":
                self._drains = rows
        crds = []
        for resource in RESOURCES:
            with self._noted():
                path = f"customresourcedefinitions/{resource}.{GROUP}"
                if raw := self._api.get("apiextensions.k8s.io/v1", path):
                    crds.append(redaction.redact_crd(raw))
        self._add_json("customresourcedefinitions.json", crds)

    def drained_nodes(self) -> list[str]:
        """Return the names of the nodes that have a NodeDrain."""
        return [str(drain["metadata"].get("name", "")) for drain in self._drains]

    def read_drained_pods(self, nodes: Iterable[str]) -> set[tuple[str, str]]:
        """Add the pods of drained nodes, and return namespace and name of each."""
        rows: list[dict[str, Any]] = []
        for node in nodes:
            with self._noted():
                pods = self._api.list_items("v1", "pods", fieldSelector=f"spec.nodeName={node}")
                rows += [redaction.redact_pod(raw) for raw in itertools.islice(pods, _MAX_OBJECTS)]
        self._add_json("pods-of-drained-nodes.json", rows)
        return {(row["metadata"].get("namespace", ""), row["metadata"].get("name", "")) for row in rows}

    def read_events(self, moved: set[tuple[str, str]]) -> None:
        """Add the Events of the operator, of nodes and our kinds, and of the pods of drained nodes.

        Events of a kubelet about a pod may quote the output of a container, so they are left out.
        """

        def concerns(event: RawObject) -> bool:
            about = event.get("involvedObject") or {}
            component = event.get("reportingComponent") or (event.get("source") or {}).get("component")
            if component == "rescheduler" or about.get("kind") in _NODE_KINDS:
                return True
            is_moved = about.get("kind") == "Pod" and (about.get("namespace"), about.get("name")) in moved
            return is_moved and component != "kubelet"

        self.add_list("events", "v1", "events", redaction.redact_event, concerns)

    def read_operator(self, namespace: str) -> None:
        """Add the Deployments, pods, Leases, logs and metrics of the operator."""
        folder = f"namespaces/{namespace}"
        select = {"labelSelector": OPERATOR_SELECTOR}
        self.add_list("operator-deployments", "apps/v1", f"{folder}/deployments", redaction.redact_deployment, **select)
        pods = self.add_list("operator-pods", "v1", f"{folder}/pods", redaction.redact_pod, **select)
        self.add_list("leases", "coordination.k8s.io/v1", f"{folder}/leases", redaction.redact_own_kind)
        with self._noted():
            if lease := self._api.get("coordination.k8s.io/v1", INSTALLATION_LEASE):
                self._add_json("installation-lease.json", redaction.redact_own_kind(lease))
        for pod in pods:
            name = str(pod["metadata"].get("name", ""))
            for container in pod["spec"].get("containers") or ():
                self._read_log(folder, name, str(container.get("name", "")))
            path = f"{folder}/pods/{name}:{_METRICS_PORT}/proxy/metrics"
            self._read_text(f"metrics/{safe_name(name)}.txt", f"the metrics of {name}", path)
        if not pods:
            self.missing.append(messages.no_operator_pods(namespace))

    def add_list(
        self, name: str, group: str, resource: str, redact: Redactor, concerns: Any = None, **params: str
    ) -> list[dict[str, Any]]:
        """Add the redacted objects of a list as a file, and return them. `concerns`: selects the objects to add."""
        rows: list[dict[str, Any]] = []
        with self._noted():
            raws = self._api.list_items(group, resource, **params)
            selected = (redact(raw) for raw in raws if concerns is None or concerns(raw))
            rows = list(itertools.islice(selected, _MAX_OBJECTS))
            if len(rows) == _MAX_OBJECTS:
                self.missing.append(messages.cut(f"{name}.json", _MAX_OBJECTS))
            self._add_json(f"{name}.json", rows)
        return rows

    def _read_log(self, folder: str, pod: str, container: str) -> None:
        limits = {"container": container, "tailLines": _MAX_LOG_LINES, "limitBytes": _MAX_LOG_BYTES}
        name, path = safe_name(f"{pod}-{container}"), f"{folder}/pods/{pod}/log"
        self._read_text(f"logs/{name}.log", f"the log of {pod}", path, **limits)
        # A container that never restarted has no previous log, and the kubelet answers with an error.
        with contextlib.suppress(PluginError):
            answer = self._api.send("get", "v1", path, params=limits | {"previous": "true"})
            if answer.ok:
                self._add_text(f"logs/{name}.previous.log", answer.text)

    def _read_text(self, name: str, what: str, path: str, **params: object) -> None:
        with self._noted():
            answer = self._api.send("get", "v1", path, params=params)
            raise_for_error(answer, f"read {what}")
            self._add_text(name, answer.text)

    def _is_installed(self) -> bool:
        with self._noted():
            return self._api.serves_group(API_VERSION)
        return False

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except ApiUnavailableError:
            raise
        except PluginError as error:
            self.missing.append(error.message)

    def _add_json(self, name: str, value: Any) -> None:
        self._add_text(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def _add_text(self, name: str, text: str) -> None:
        names = {file.name for file in self.files}
        base, dot, ending = name.partition(".")
        numbered = (f"{base}-{number}{dot}{ending}" for number in itertools.count(2))
        unique = name if name not in names else next(found for found in numbered if found not in names)
        self.files.append(ReportFile(unique, text.encode(errors="replace")))
