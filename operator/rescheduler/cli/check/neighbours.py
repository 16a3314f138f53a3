"""Tools of a cluster that drain nodes, evict or move pods, prune objects, or gate new pods: how they are recognised.

`NEIGHBOURS` is the table. `messages.NEIGHBOUR_TEXTS` says what each means for a drain.
docs/guides/check.md has the same table for users.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rescheduler.cli.check import messages
from rescheduler.cli.check.findings import Finding, Level, Topic
from rescheduler.core.model.external_owners import node_owner_reason
from rescheduler.core.model.nodes import Node


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A tool, and the marks by which it is recognised. Any of them is enough.

    Attributes:
        groups: API groups that only this tool serves; `group/resource` names a resource of a group.
        image: pattern for the whole last part of the name of a container image, without tag.
    """

    name: str
    level: Level = Level.NOTE
    groups: tuple[str, ...] = ()
    image: str = ""


NEIGHBOURS = (
    Neighbour("kured", Level.WARNING, image="kured"),
    Neighbour("node termination handler", Level.WARNING, image=".*(node|spot)-termination-handler"),
    Neighbour("Draino", Level.WARNING, image="draino2?"),
    Neighbour("descheduler", Level.WARNING, image="descheduler"),
    Neighbour("Karpenter", groups=("karpenter.sh",)),
    Neighbour("cluster-autoscaler", image="cluster-autoscaler.*"),
    Neighbour("system-upgrade-controller", groups=("upgrade.cattle.io",), image="system-upgrade-controller"),
    Neighbour("Node Maintenance (medik8s)", groups=("nodemaintenance.medik8s.io",)),
    Neighbour(
        "medik8s remediation",
        groups=(
            "remediation.medik8s.io",
            "self-node-remediation.medik8s.io",
            "fence-agents-remediation.medik8s.io",
        ),
    ),
    Neighbour("OpenShift Machine Config Operator", groups=("machineconfiguration.openshift.io",)),
    Neighbour("Cluster API", groups=("cluster.x-k8s.io",)),
    Neighbour("Gardener machine-controller-manager", groups=("machine.sapcloud.io",)),
    Neighbour("node-problem-detector", image="node-problem-detector"),
    Neighbour("Vertical Pod Autoscaler", image="vpa-updater"),
    Neighbour("KubeVirt", groups=("kubevirt.io",)),
    Neighbour("Strimzi", groups=("core.strimzi.io",)),
    Neighbour("Paguro", groups=("paguro.dev",)),
    Neighbour("CloudNativePG", groups=("postgresql.cnpg.io",)),
    Neighbour("Longhorn", groups=("longhorn.io",)),
    Neighbour("Rook", groups=("ceph.rook.io",)),
    Neighbour("Argo CD", groups=("argoproj.io/applications",)),
    Neighbour("Argo Rollouts", groups=("argoproj.io/rollouts",)),
    Neighbour("Flux", groups=("kustomize.toolkit.fluxcd.io",)),
    Neighbour("Kyverno", groups=("kyverno.io",)),
    Neighbour("Gatekeeper", groups=("templates.gatekeeper.sh",)),
    Neighbour("Kueue", groups=("kueue.x-k8s.io",)),
    Neighbour("OpenKruise", groups=("policy.kruise.io",)),
)
GROUPS_TO_READ = tuple(dict.fromkeys(g.partition("/")[0] for row in NEIGHBOURS for g in row.groups if "/" in g))
"""Groups whose resources must be known, because several tools share the group."""


@dataclass(frozen=True, slots=True)
class Image:
    """A container image that runs, and a pod that runs it."""

    name: str
    pod: str

    @property
    def base_name(self) -> str:
        """Return the last part of the name, without tag and digest: `kured` of `ghcr.io/kubereboot/kured:1.17`."""
        return self.name.partition("@")[0].rpartition("/")[2].partition(":")[0]


def find_neighbours(groups: Iterable[str], images: Iterable[Image], nodes: Iterable[Node]) -> Iterator[Finding]:
    """Return a finding for each known tool. `groups`: the served API groups, and `group/resource` of some groups."""
    served = frozenset(groups)
    pods_by_image: Mapping[str, str] = {image.base_name: image.pod for image in images}
    found = False
    for row in NEIGHBOURS:
        marks = [messages.served_group(group) for group in row.groups if group in served]
        if row.image:
            matching = (name for name in sorted(pods_by_image) if re.fullmatch(row.image, name))
            marks += [messages.running_pod(pods_by_image[name]) for name in matching]
        if marks:
            found = True
            meaning, next_step = messages.NEIGHBOUR_TEXTS[row.name]
            yield Finding(row.level, Topic.NEIGHBOURS, messages.neighbour(row.name, marks[0]), meaning, next_step)
    if held := [f"{node.name}: {reason}" for node in nodes if (reason := node_owner_reason(node))]:
        meaning = messages.HELD_NODES_MEANING
        yield Finding(Level.NOTE, Topic.NEIGHBOURS, messages.held_nodes(len(held)), meaning, objects=held)
    elif not found:
        yield Finding(Level.OK, Topic.NEIGHBOURS, messages.NO_NEIGHBOURS)
