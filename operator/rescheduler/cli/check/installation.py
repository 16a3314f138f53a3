"""Findings about Kubernetes features, the CRDs, the operator, and the versions of all parts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rescheduler.api import GROUP, VERSION
from rescheduler.api.crds import crds
from rescheduler.cli.check import messages
from rescheduler.cli.check.findings import Finding, Level, Topic
from rescheduler.cli.version import minor_version
from rescheduler.core.model.crd_fields import is_served, missing_fields, stored_fields
from rescheduler.core.model.raw import RawObject
from rescheduler.core.pools.admission_policies import MUTATING, VALIDATING

RESOURCES = ("reschedulepolicies", "namespacepools", "nodedrains")
"""The resources of Rescheduler."""
_OWN_FIELDS = (".spec.", ".status.")


@dataclass(frozen=True, slots=True)
class OperatorDeployment:
    """The Deployment of an operator. `version`: its label, or the tag of its image; empty if it has none."""

    namespace: str
    name: str
    version: str
    ready: int
    replicas: int


@dataclass(frozen=True, slots=True)
class InstallationFacts:
    """Installed parts of Rescheduler, and what the API server serves.

    Attributes:
        admission_resources: resources that the API server serves in `admissionregistration.k8s.io/v1`.
        is_served: whether the API server serves the group of Rescheduler.
        crds: the raw CRD of each resource that could be read; None if absent.
        operators: None if Deployments cannot be read.
        leading_in: namespaces of operators whose leader renews its Lease; None if Leases cannot be read.
        unreadable_objects: why policies and NodeDrains cannot be parsed; empty if they can.
        policies: names of the ReschedulePolicies; None if they cannot be read.
        nodes_without_policy: names of the nodes that no policy selects.
    """

    plugin_version: str
    server_version: str
    admission_resources: Collection[str] = ()
    is_served: bool = False
    crds: Mapping[str, RawObject | None] = field(default_factory=dict)
    operators: Sequence[OperatorDeployment] | None = ()
    leading_in: Sequence[str] | None = None
    unreadable_objects: str = ""
    policies: Sequence[str] | None = ()
    nodes_without_policy: Sequence[str] = ()

    @property
    def operator_version(self) -> str:
        """Return the version of the operator; empty if none is installed."""
        return self.operators[0].version if self.operators else ""

    @property
    def is_installed(self) -> bool:
        """Whether a part of Rescheduler is installed."""
        return self.is_served or bool(self.operators) or any(self.crds.values())


def find_features(facts: InstallationFacts) -> Iterator[Finding]:
    """Return which parts of Rescheduler would not work on this API server."""
    missing = []
    if VALIDATING not in facts.admission_resources:
        missing.append(messages.WITHOUT_VALIDATING_POLICIES)
    if MUTATING not in facts.admission_resources:
        missing.append(messages.WITHOUT_MUTATING_POLICIES)
    for state, meaning, next_step in missing:
        yield Finding(Level.NOTE, Topic.FEATURES, state, meaning, next_step)
    if not missing:
        yield Finding(Level.OK, Topic.FEATURES, messages.features_served(facts.server_version))


def find_installation(facts: InstallationFacts) -> Iterator[Finding]:
    """Return what is installed, and which versions do not belong together."""
    if not facts.is_installed:
        yield Finding(Level.NOTE, Topic.INSTALLATION, messages.NOT_INSTALLED, next_step=messages.INSTALL)
        return
    yield from _find_crds(facts)
    yield from _find_operators(facts)
    if facts.unreadable_objects:
        state = messages.unreadable_objects(facts.unreadable_objects)
        yield Finding(Level.PROBLEM, Topic.INSTALLATION, state, next_step=messages.MATCH_VERSIONS)
    elif facts.is_served and facts.policies is not None and not facts.policies:
        state, meaning, next_step = messages.NO_POLICY
        yield Finding(Level.WARNING, Topic.INSTALLATION, state, meaning, next_step)
    elif facts.nodes_without_policy:
        state = messages.nodes_without_policy(len(facts.nodes_without_policy))
        meaning, names = messages.NODES_WITHOUT_POLICY_MEANING, sorted(facts.nodes_without_policy)
        yield Finding(Level.NOTE, Topic.INSTALLATION, state, meaning, objects=names)


def _find_crds(facts: InstallationFacts) -> Iterator[Finding]:
    absent = [f"{resource}.{GROUP}" for resource in RESOURCES if resource in facts.crds and not facts.crds[resource]]
    if absent:
        yield Finding(
            Level.PROBLEM, Topic.INSTALLATION, messages.crds_absent(len(absent)), next_step=messages.INSTALL_CRDS,
            objects=absent,
        )  # fmt: skip
    known = crds()
    for resource, raw in facts.crds.items():
        if not raw:
            continue
        name = f"{resource}.{GROUP}"
        if not is_served(raw):
            state = messages.version_not_served(name, VERSION)
            yield Finding(Level.PROBLEM, Topic.INSTALLATION, state, next_step=messages.MATCH_VERSIONS)
            continue
        served, expected = stored_fields(raw), stored_fields(known[resource])
        if lacking := missing_fields(expected, served):
            state, meaning = messages.crd_older(name, len(lacking)), messages.CRD_OLDER_MEANING
            yield Finding(Level.PROBLEM, Topic.INSTALLATION, state, meaning, messages.INSTALL_CRDS, lacking)
        elif more := [field for field in missing_fields(served, expected) if field.startswith(_OWN_FIELDS)]:
            state, meaning = messages.crd_newer(name, len(more)), messages.CRD_NEWER_MEANING
            yield Finding(Level.WARNING, Topic.INSTALLATION, state, meaning, messages.MATCH_VERSIONS, more)


def _find_operators(facts: InstallationFacts) -> Iterator[Finding]:
    if facts.leading_in and not facts.operators:
        yield Finding(Level.OK, Topic.INSTALLATION, messages.operator_leads(facts.leading_in))
        return
    if facts.operators is None:
        return
    if not facts.operators:
        state, meaning, next_step = messages.NO_OPERATOR
        yield Finding(Level.WARNING, Topic.INSTALLATION, state, meaning, next_step)
        return
    if len(facts.operators) > 1:
        names = [f"{operator.namespace}/{operator.name}" for operator in facts.operators]
        state, meaning = messages.several_operators(len(names)), messages.SEVERAL_OPERATORS_MEANING
        yield Finding(Level.NOTE, Topic.INSTALLATION, state, meaning, objects=names)
    for operator in facts.operators:
        name = f"{operator.namespace}/{operator.name}"
        if not operator.ready:
            state = messages.operator_not_ready(name, operator.replicas)
            meaning, next_step = messages.OPERATOR_NOT_READY_MEANING, messages.look_at_operator(operator.namespace)
            yield Finding(Level.PROBLEM, Topic.INSTALLATION, state, meaning, next_step)
        elif facts.leading_in == []:
            state, next_step = messages.no_leader(name), messages.look_at_operator(operator.namespace)
            yield Finding(Level.PROBLEM, Topic.INSTALLATION, state, messages.OPERATOR_NOT_READY_MEANING, next_step)
            continue
        if operator.version and minor_version(operator.version) != minor_version(facts.plugin_version):
            state = messages.version_skew(facts.plugin_version, name, operator.version)
            yield Finding(Level.WARNING, Topic.INSTALLATION, state, next_step=messages.MATCH_VERSIONS)
        elif operator.ready:
            state = messages.operator_ready(name, operator.version, operator.ready)
            yield Finding(Level.OK, Topic.INSTALLATION, state)
