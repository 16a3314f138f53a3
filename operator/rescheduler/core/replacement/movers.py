"""Known movers: tools that take the eviction of a pod over and move the pod themselves, such as KubeVirt.

Such a pod is not released first. Its workload would run twice, and a mover would not know the pod without its
ReplicaSet. A mover learns of the pod from a real eviction.
"""

from dataclasses import dataclass

from rescheduler.api import names
from rescheduler.core.model.pods import Pod


@dataclass(frozen=True, slots=True)
class Mover:
    """A mover, and the mark of its pods. A pod with any of the marks is a pod of the mover.

    Attributes:
        label: key and value of a label.
        owner_kind: kind of the controller, with its group.
        annotation: key of an annotation with any value.
    """

    name: str
    label: tuple[str, str] | None = None
    owner_kind: str | None = None
    annotation: str | None = None

    def moves(self, pod: Pod) -> bool:
        """Whether the pod has a mark of the mover."""
        return (
            (self.label is not None and pod.labels.get(self.label[0]) == self.label[1])
            or (pod.owner is not None and pod.owner.kind == self.owner_kind)
            or self.annotation in pod.annotations
        )


# The entity operator of Strimzi has the labels of Kafka too, and nobody moves it. Therefore Strimzi has no label here.
MOVERS = (
    Mover("KubeVirt", label=("kubevirt.io", "virt-launcher"), owner_kind="VirtualMachineInstance.kubevirt.io"),
    Mover("Strimzi", owner_kind="StrimziPodSet.core.strimzi.io"),
    Mover("Paguro", label=("paguro.dev/migratable", "true")),
    Mover("another component", annotation=names.EVICT_ONLY),
)


def has_mover(pod: Pod) -> bool:
    """Whether a known mover moves the pod when it is evicted."""
    return any(mover.moves(pod) for mover in MOVERS)
