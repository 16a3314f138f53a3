"""Every label, annotation, taint and condition type that the project reads or writes, in one place.

Those of ours begin with the API group; none carries a node's name as a value (63 characters at most).
"""

from typing import Final

from rescheduler.api import GROUP

MAINTENANCE: Final = f"{GROUP}/maintenance"
"""Node annotation: its presence asks for maintenance, its value says why."""
CANCELLED: Final = f"{GROUP}/cancelled"
"""Node annotation: requests that stand, but were cancelled by deleting their NodeDrain."""
FENCED: Final = f"{GROUP}/fenced"
"""Node annotation: somebody's attestation that a boot of the node is dead."""
DO_NOT_DISRUPT: Final = f"{GROUP}/do-not-disrupt"
REPLACEMENT: Final = f"{GROUP}/replacement"
MOVE: Final = f"{GROUP}/move"
"""Pod annotation: the record of a move (`core.moves`)."""
POD_TEMPLATE_HASH: Final = "pod-template-hash"
POD_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
POOL: Final = f"{GROUP}/pool"
NODE_POOL: Final = "rescheduler.node-restriction.kubernetes.io/pool"
ADMISSION_SKIP: Final = f"{GROUP}/admission-skip"
"""Label of a NamespacePool that admission need not look at for every pod: others say that there is an exclusive one."""
WAITING_TAINT_KEY: Final = f"{GROUP}/drain"
"""PreferNoSchedule taint of nodes that wait for their turn."""
OUT_OF_SERVICE_TAINT_KEY: Final = "node.kubernetes.io/out-of-service"
"""Kubernetes' own: what is Terminating on a node with it is removed, and its volumes are detached."""
SHUTDOWN_TAINT_KEY: Final = "node.cloudprovider.kubernetes.io/shutdown"
"""Taint of cloud controllers: the provider says that the machine is off."""
FINALIZER: Final = f"{GROUP}/restore"
"""On NodeDrain alone: it goes when the node is as it was."""

STEPPED_BACK: Final = f"{GROUP}/stepped-back"
"""On a NodeDrain: the name and UID of the drain that it stepped back for."""

SCALE_DOWN_DISABLED: Final = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
KARPENTER_DO_NOT_DISRUPT: Final = "karpenter.sh/do-not-disrupt"
KARPENTER_NODEPOOL: Final = "karpenter.sh/nodepool"
MACHINE: Final = "cluster.x-k8s.io/machine"
"""Node annotation: the Cluster API Machine that the node came from."""
MACHINE_NAMESPACE: Final = "cluster.x-k8s.io/cluster-namespace"
EXCLUDE_FROM_LOAD_BALANCERS: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
MIRROR_POD: Final = "kubernetes.io/config.mirror"
CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
ZONE: Final = "topology.kubernetes.io/zone"

DRAIN_IN_PROGRESS: Final = "DrainInProgress"
DRAINED: Final = "Drained"
MAINTENANCE_IN_PROGRESS: Final = "MaintenanceInProgress"
NODE_CONDITIONS: Final = (DRAIN_IN_PROGRESS, DRAINED, MAINTENANCE_IN_PROGRESS)
"""Node conditions of ours (names of KEP-5683)."""
DISRUPTION_TARGET: Final = "DisruptionTarget"
"""Pod condition: it is about to end by a disruption, and not by a failure of its own."""
INSTALL_HINT: Final = "kubectl apply -f manifests/crds, or install the chart"
"""The way to the CRDs, where they are missing."""
