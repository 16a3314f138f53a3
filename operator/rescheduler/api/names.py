"""Labels, annotations, taints and condition types of Rescheduler, and those of others that several packages read.

Names of Rescheduler begin with the API group. No label has a node name as its value, because a node name can be longer
than 63 characters.
"""

from typing import Final

from rescheduler.api import GROUP

MAINTENANCE: Final = f"{GROUP}/maintenance"
"""Node annotation that requests maintenance. Its value is the message of the request."""
CANCELLED: Final = f"{GROUP}/cancelled"
"""Node annotation with the requests that still stand, but were cancelled by deleting the NodeDrain."""
FENCED: Final = f"{GROUP}/fenced"
"""Node annotation with the attestation that a boot of the node is dead."""
DO_NOT_DISRUPT: Final = f"{GROUP}/do-not-disrupt"
REPLACEMENT: Final = f"{GROUP}/replacement"
MOVE: Final = f"{GROUP}/move"
"""Pod annotation with the record of a move (`core.model.release_record`)."""
KARPENTER_DO_NOT_DISRUPT: Final = "karpenter.sh/do-not-disrupt"
"""Opt-out of Karpenter on a pod or a node: `"true"`, or on a pod a duration from its start."""
SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"
"""Opt-out of cluster-autoscaler on a pod, if the value is `"false"`."""
PREFER_NO_EVICTION: Final = "descheduler.alpha.kubernetes.io/prefer-no-eviction"
"""Opt-out of the descheduler on a pod, with any value."""
EVICT_ONLY: Final = "descheduler.alpha.kubernetes.io/request-evict-only"
"""Pod annotation, with any value: another component takes the evictions of the pod over and moves it."""
POD_TEMPLATE_HASH: Final = "pod-template-hash"
POD_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
POOL: Final = f"{GROUP}/pool"
NODE_POOL: Final = "rescheduler.node-restriction.kubernetes.io/pool"
ADMISSION_SKIP: Final = f"{GROUP}/admission-skip"
"""Label of a NamespacePool that admission need not evaluate for each pod, because other exclusive pools suffice."""
WAITING_TAINT_KEY: Final = f"{GROUP}/drain"
"""Key of the waiting taint, `PreferNoSchedule`."""
OUT_OF_SERVICE_TAINT_KEY: Final = "node.kubernetes.io/out-of-service"
"""Taint of Kubernetes: it lets Kubernetes remove Terminating pods from the node and detach their volumes."""
SHUTDOWN_TAINT_KEY: Final = "node.cloudprovider.kubernetes.io/shutdown"
"""Taint of cloud controllers: the provider reports that the machine is off."""
FINALIZER: Final = f"{GROUP}/restore"
"""Finalizer of a NodeDrain. The operator removes it after the node is restored."""

STEPPED_BACK: Final = f"{GROUP}/stepped-back"
"""NodeDrain annotation with the name and UID of the other drain of a deadlock, for which this drain steps back."""

SCALE_DOWN_DISABLED: Final = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
KARPENTER_NODEPOOL: Final = "karpenter.sh/nodepool"
MACHINE: Final = "cluster.x-k8s.io/machine"
"""Node annotation with the name of the Cluster API Machine of the node."""
MACHINE_NAMESPACE: Final = "cluster.x-k8s.io/cluster-namespace"
OPENSHIFT_DESIRED_DRAIN: Final = "machineconfiguration.openshift.io/desiredDrain"
"""Node annotation by which OpenShift's Machine Config Daemon requests a drain or an uncordon."""
TALOS_CORDONED: Final = "talos.dev/cordoned"
"""Node annotation of a node that Talos has cordoned."""
EXCLUDE_FROM_LOAD_BALANCERS: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
MIRROR_POD: Final = "kubernetes.io/config.mirror"
CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
ZONE: Final = "topology.kubernetes.io/zone"

DRAIN_IN_PROGRESS: Final = "DrainInProgress"
DRAINED: Final = "Drained"
MAINTENANCE_IN_PROGRESS: Final = "MaintenanceInProgress"
NODE_CONDITIONS: Final = (DRAIN_IN_PROGRESS, DRAINED, MAINTENANCE_IN_PROGRESS)
"""Node conditions that Rescheduler sets. The names are those of KEP-5683."""
DISRUPTION_TARGET: Final = "DisruptionTarget"
"""Pod condition of Kubernetes: a disruption is about to end the pod, not a failure of the pod."""
INSTALL_HINT: Final = "kubectl apply -f manifests/crds, or install the chart"
"""Command that installs missing CRDs."""
