"""Known helpers: pods that serve other pods of their node, such as a pod that holds a mount for them.

A helper that leaves first takes the volume from the pods that use it. They lose their data, or stay Terminating because
the kubelet cannot unmount the volume. Therefore a helper leaves after all other pods, except for system-critical ones.
"""

from dataclasses import dataclass

from rescheduler.core.model.pods import Pod

HELPER_ORDER = 500_000
"""Order of known helpers without a matching rule: after all other pods, and before system-critical ones."""


@dataclass(frozen=True, slots=True)
class Helper:
    """A kind of helper, and the label of its pods.

    Attributes:
        tool: the tool that creates the helpers on demand.
        label: key of the label.
        value: value of the label; None means any value.
    """

    tool: str
    label: str
    value: str | None = None

    def matches(self, pod: Pod) -> bool:
        """Whether the pod has the label."""
        return self.label in pod.labels and self.value in (None, pod.labels[self.label])


HELPERS = (
    Helper("JuiceFS CSI driver", "app.kubernetes.io/name", "juicefs-mount"),
    Helper("KubeVirt", "kubevirt.io", "hotplug-disk"),
    Helper("Longhorn", "longhorn.io/component", "instance-manager"),
    Helper("Mountpoint for Amazon S3 CSI driver", "s3.csi.aws.com/mountpoint-version"),
)


def is_helper(pod: Pod) -> bool:
    """Whether the pod is a known helper."""
    return any(helper.matches(pod) for helper in HELPERS)
