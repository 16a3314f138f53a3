"""Read everything that a check needs: page by page, each kind once, and only with the rights of the user.

What cannot be read becomes a finding. Only an API server that does not answer ends the check.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rescheduler.api import GROUP
from rescheduler.cli.check import messages
from rescheduler.cli.check.admission_hooks import AdmissionHook, Service, find_admission, parse_policies, parse_webhooks
from rescheduler.cli.check.findings import Finding, Level, Topic, sort_findings
from rescheduler.cli.check.installation import (
    RESOURCES,
    InstallationFacts,
    OperatorDeployment,
    find_features,
    find_installation,
)
from rescheduler.cli.check.neighbours import GROUPS_TO_READ, Image, find_neighbours
from rescheduler.cli.check.pod_findings import PodFacts, find_in_pods
from rescheduler.cli.check.rights import ALL_RIGHTS, EVERYTHING, Right, find_missing_rights
from rescheduler.cli.cluster_api import ApiUnavailableError, ClusterApi, PluginError, parse_json, raise_for_error
from rescheduler.cli.cluster_reader import LivePolicies, read_policies
from rescheduler.cli.operator_lease import read_leaders
from rescheduler.cli.version import plugin_version
from rescheduler.core.model import disruption_budgets, nodes, pods, volumes, workloads
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.volumes import NodeVolumes


def _bindings_of(policies: str) -> str:
    return f"{policies.removesuffix('ies')}ybindings"


_ADMISSION = "admissionregistration.k8s.io/v1"
_WEBHOOKS = {
    "validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
    "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
}
_POLICIES = {
    "validatingadmissionpolicies": "ValidatingAdmissionPolicy",
    "mutatingadmissionpolicies": "MutatingAdmissionPolicy",
}
_KINDS_OF: Mapping[Topic, frozenset[str]] = {
    Topic.RIGHTS: frozenset(),
    Topic.FEATURES: frozenset({_ADMISSION}),
    Topic.INSTALLATION: frozenset({"customresourcedefinitions"}),
    Topic.BUDGETS: frozenset({"pods", "nodes", "poddisruptionbudgets", "deployments"}),
    Topic.PODS: frozenset({"pods", "nodes"}),
    Topic.REPLICAS: frozenset({"pods", "nodes", "deployments", "statefulsets"}),
    Topic.ADMISSION: frozenset({_ADMISSION, *_WEBHOOKS, *_POLICIES, *map(_bindings_of, _POLICIES)}),
    Topic.NEIGHBOURS: frozenset({"apis", "pods", "nodes"}),
}
"""What must be readable to say that a topic is fine."""
_REPLACEMENT_KINDS = frozenset({"deployments", "persistentvolumeclaims"})
"""What must be readable to say whether a pod is replaced first."""
_JSON = {"Content-Type": "application/json"}
_NAME_LABEL, _VERSION_LABEL = "app.kubernetes.io/name", "app.kubernetes.io/version"
_OPERATOR_NAME = "rescheduler"


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The facts of one moment.

    Attributes:
        missing_rights: rights of the plugin that the user lacks.
        review_error: why rights are unknown; empty if they are known.
        groups: served API groups, and `group/resource` of groups that several tools share.
        dead_services: Services of webhooks without a ready endpoint.
        unreadable: what could not be read, with the answer of the API server.
    """

    installation: InstallationFacts
    pods: PodFacts
    missing_rights: Collection[Right] = ()
    review_error: str = ""
    groups: Collection[str] = ()
    images: Collection[Image] = ()
    hooks: Collection[AdmissionHook] = ()
    dead_services: Collection[Service] = ()
    unreadable: dict[str, str] = field(default_factory=dict)

    def findings(self) -> list[Finding]:
        """Return all findings, the most important first. What could not be read is not reported as fine."""
        findings = [
            *find_missing_rights(self.missing_rights, self.review_error),
            *find_unreadable(self.unreadable),
            *find_features(self.installation),
            *find_installation(self.installation),
            *find_in_pods(self.pods),
            *find_admission(self.hooks, self.dead_services, tuple(self.pods.namespace_labels.values())),
            *find_neighbours(self.groups, self.images, self.pods.nodes.values()),
        ]
        return sort_findings(finding for finding in findings if self._is_known(finding))

    def _is_known(self, finding: Finding) -> bool:
        """Whether everything was read that the finding depends on."""
        if finding.topic in (Topic.BUDGETS, Topic.REPLICAS) and self.unreadable.keys() & _REPLACEMENT_KINDS:
            return False
        return finding.level is not Level.OK or not self.unreadable.keys() & _KINDS_OF[finding.topic]


def find_unreadable(unreadable: Mapping[str, str]) -> Iterator[Finding]:
    """Return which parts of the check are left out. `unreadable`: what could not be read, with the answer."""
    if unreadable:
        objects = [messages.not_readable(what, answer) for what, answer in unreadable.items()]
        yield Finding(Level.WARNING, Topic.RIGHTS, messages.not_all_readable(len(objects)), objects=objects)


def read_cluster_facts(api: ClusterApi) -> ClusterFacts:
    """Read the facts of a check. Raises ApiUnavailableError without an answer of the API server."""
    reader = _Reader(api)
    server_version = str(api.get_document("version").get("gitVersion", ""))
    missing_rights, review_error = reader.missing_rights()
    groups = reader.groups()
    node_records = {node.name: node for node in reader.parse("v1", "nodes", nodes.parse_node)}
    read, unreadable_objects = reader.policies()
    policies = read or LivePolicies(None, {}, {})
    deployments = list(reader.items("apps/v1", "deployments"))
    stateful_sets = list(reader.items("apps/v1", "statefulsets"))
    pod_records, images = reader.pods()
    pod_facts = PodFacts(
        datetime.now(UTC),
        pod_records,
        nodes=node_records,
        budgets=reader.budgets(),
        deployments=reader.deployments(deployments),
        single_stateful_sets=frozenset(_uids_of_single(stateful_sets)),
        workloads_with_node_name=[
            *_with_node_name("Deployment", deployments),
            *_with_node_name("StatefulSet", stateful_sets),
        ],
        volumes=reader.volumes(node_records),
        namespace_labels=reader.namespace_labels(),
        settings_for=lambda node: policies.drain_for(node)[1],
    )
    selector = policies.policy_selector
    installation = InstallationFacts(
        plugin_version(),
        server_version,
        admission_resources=reader.resources(_ADMISSION),
        is_served=GROUP in groups,
        crds=reader.crds() if GROUP in groups else dict.fromkeys(RESOURCES),
        operators=None if "deployments" in reader.unreadable else tuple(_operators(deployments)),
        leading_in=reader.leading_in() if GROUP in groups else None,
        unreadable_objects=unreadable_objects,
        policies=None if read is None else [policy.name for policy in selector.policies] if selector else (),
        nodes_without_policy=[
            node.name for node in node_records.values() if selector and selector.policy_for(node) is None
        ],
    )
    hooks = reader.hooks(installation.admission_resources)
    services = {hook.service for hook in hooks if hook.service and hook.fails_closed}
    return ClusterFacts(
        installation,
        pod_facts,
        missing_rights=missing_rights,
        review_error=review_error,
        groups=groups,
        images=images,
        hooks=hooks,
        dead_services={service for service in services if reader.is_dead(service)},
        unreadable=reader.unreadable,
    )


class _Reader:
    """Reads kinds. What cannot be read is remembered and counts as absent."""

    def __init__(self, api: ClusterApi) -> None:
        self._api = api
        self.unreadable: dict[str, str] = {}

    def items(self, group: str, resource: str) -> Iterator[RawObject]:
        """Yield the raw objects of a kind; none if the user may not list it."""
        with self._remembered(resource):
            yield from self._api.list_items(group, resource)

    def parse(self, group: str, resource: str, parse: Any) -> Iterator[Any]:
        """Yield the records of a kind, without the objects that cannot be parsed."""
        for raw in self.items(group, resource):
            with contextlib.suppress(ValueError):
                yield parse(raw)

    def resources(self, group: str) -> frozenset[str]:
        """Return the resources of a group, as of discovery."""
        with self._remembered(group):
            return self._api.resource_names(group)
        return frozenset()

    def missing_rights(self) -> tuple[frozenset[Right], str]:
        """Return the rights that the user lacks, and the error if the API server reviews none."""
        try:
            if self._is_allowed(EVERYTHING):
                return frozenset(), ""
            return frozenset(right for right in ALL_RIGHTS if not self._is_allowed(right)), ""
        except ApiUnavailableError:
            raise
        except PluginError as error:
            return frozenset(), error.message

    def groups(self) -> frozenset[str]:
        """Return the served groups, and the resources of groups that several tools share."""
        found: set[str] = set()
        with self._remembered("apis"):
            groups = {group["name"]: group for group in self._api.get_document("apis").get("groups") or ()}
            found = set(groups)
            for name in GROUPS_TO_READ:
                if name in groups:
                    preferred = (groups[name].get("preferredVersion") or {}).get("groupVersion", "")
                    found |= {f"{name}/{resource}" for resource in self.resources(preferred)}
        return frozenset(found)

    def policies(self) -> tuple[LivePolicies | None, str]:
        """Return the policies, and why they cannot be parsed. None: they cannot be read, and the defaults count."""
        try:
            return read_policies(self._api), ""
        except ApiUnavailableError:
            raise
        except PluginError as error:
            if not messages.is_forbidden(error.message):
                return None, error.message
            self.unreadable["reschedulepolicies"] = error.message
            return None, ""

    def leading_in(self) -> list[str] | None:
        """Return the namespaces of operators that lead; None if Leases may not be listed."""
        leaders = read_leaders(self._api)
        return None if leaders is None else [leader.namespace for leader in leaders if leader.current]

    def crds(self) -> dict[str, RawObject | None]:
        """Return the CRD of each resource that may be read; None for an absent one."""
        found: dict[str, RawObject | None] = {}
        for resource in RESOURCES:
            with self._remembered("customresourcedefinitions"):
                path = f"customresourcedefinitions/{resource}.{GROUP}"
                found[resource] = self._api.get("apiextensions.k8s.io/v1", path)
        return found

    def pods(self) -> tuple[list[pods.Pod], list[Image]]:
        """Return the pods that have a node, and the images that they run."""
        records: list[pods.Pod] = []
        images: dict[str, str] = {}
        for raw in self.items("v1", "pods"):
            with contextlib.suppress(ValueError):
                pod = pods.parse_pod(raw)
                for container in (raw.get("spec") or {}).get("containers") or ():
                    images.setdefault(str(container.get("image", "")), pod.key)
                if pod.node:
                    records.append(pod)
        return records, [Image(name, pod) for name, pod in images.items()]

    def budgets(self) -> dict[str, list[disruption_budgets.DisruptionBudget]]:
        """Return the budgets by namespace."""
        found: dict[str, list[disruption_budgets.DisruptionBudget]] = defaultdict(list)
        for budget in self.parse("policy/v1", "poddisruptionbudgets", disruption_budgets.parse_budget):
            found[budget.namespace].append(budget)
        return found

    def deployments(self, raws: Iterable[RawObject]) -> dict[tuple[str, str], workloads.Deployment]:
        """Return the Deployments by namespace and name."""
        found = {}
        for raw in raws:
            with contextlib.suppress(ValueError):
                deployment = workloads.parse_deployment(raw)
                found[deployment.namespace, deployment.name] = deployment
        return found

    def volumes(self, node_names: Collection[str]) -> NodeVolumes:
        """Return the claims, and the volumes with data on one node."""
        claims = self.parse("v1", "persistentvolumeclaims", volumes.parse_volume_claim)
        found = self.parse("v1", "persistentvolumes", volumes.parse_volume)
        return NodeVolumes(
            {(claim.namespace, claim.name): claim for claim in claims},
            frozenset(volume.name for volume in found if volume.is_local_to(node_names)),
        )

    def namespace_labels(self) -> dict[str, dict[str, str]]:
        """Return the labels of the namespaces."""
        found = self.items("v1", "namespaces")
        return {raw["metadata"]["name"]: dict(raw["metadata"].get("labels") or {}) for raw in found}

    def hooks(self, served: Collection[str]) -> list[AdmissionHook]:
        """Return the webhooks and admission policies that hear of a drain. `served`: resources of their group."""
        hooks = [
            hook
            for resource, kind in _WEBHOOKS.items()
            for raw in self.items(_ADMISSION, resource)
            for hook in parse_webhooks(kind, raw)
        ]
        for resource, kind in _POLICIES.items():
            if resource in served:
                bindings = self.items(_ADMISSION, _bindings_of(resource))
                hooks += parse_policies(kind, self.items(_ADMISSION, resource), bindings)
        return hooks

    def is_dead(self, service: Service) -> bool:
        """Whether a Service has no ready endpoint; False if this cannot be read."""
        namespace, name = service
        path, selector = f"namespaces/{namespace}/endpointslices", f"kubernetes.io/service-name={name}"
        with self._remembered("endpointslices"):
            slices = self._api.list_items("discovery.k8s.io/v1", path, labelSelector=selector)
            endpoints = (endpoint for found in slices for endpoint in found.get("endpoints") or ())
            return not any((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in endpoints)
        return False

    @contextlib.contextmanager
    def _remembered(self, what: str) -> Iterator[None]:
        try:
            yield
        except ApiUnavailableError:
            raise
        except PluginError as error:
            self.unreadable[what] = error.message

    def _is_allowed(self, right: Right) -> bool:
        body = right.review()
        answer = self._api.send(
            "post", "authorization.k8s.io/v1", "selfsubjectaccessreviews", data=json.dumps(body), headers=_JSON
        )
        raise_for_error(answer, "review your rights")
        return bool((parse_json(answer).get("status") or {}).get("allowed"))


def _uids_of_single(raws: Iterable[RawObject]) -> Iterator[str]:
    """Yield the UIDs of the workloads of one replica."""
    return (raw["metadata"]["uid"] for raw in raws if (raw.get("spec") or {}).get("replicas") == 1)


def _with_node_name(kind: str, raws: Iterable[RawObject]) -> Iterator[str]:
    for raw in raws:
        if _template_spec(raw).get("nodeName"):
            yield f"{kind} {raw['metadata']['namespace']}/{raw['metadata']['name']}"


def _template_spec(raw: RawObject) -> RawObject:
    return ((raw.get("spec") or {}).get("template") or {}).get("spec") or {}


def _operators(deployments: Iterable[RawObject]) -> Iterator[OperatorDeployment]:
    for raw in deployments:
        meta, spec = raw["metadata"], raw.get("spec") or {}
        labels = meta.get("labels") or {}
        if labels.get(_NAME_LABEL) != _OPERATOR_NAME:
            continue
        containers = _template_spec(raw).get("containers") or [{}]
        tag = str(containers[0].get("image", "")).partition("@")[0].rpartition("/")[2].partition(":")[2]
        status = raw.get("status") or {}
        yield OperatorDeployment(
            meta["namespace"],
            meta["name"],
            labels.get(_VERSION_LABEL) or tag,
            int(status.get("readyReplicas", 0)),
            int(spec.get("replicas", 1)),
        )
