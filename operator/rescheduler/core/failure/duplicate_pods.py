"""Whether a pod that was taken off a dead node runs elsewhere, should that node turn out to have lived."""

from collections.abc import Iterable

from rescheduler.core.model.pods import Pod

_CONTROLLER = "batch.kubernetes.io/controller-uid"
_INDEX = "batch.kubernetes.io/job-completion-index"
_HASH = "pod-template-hash"


def where(pod: Pod) -> dict[str, str]:
    """Parameters of a list in the pod's namespace that finds its successor, and little else."""
    kind = pod.owner.kind if pod.owner else ""
    if kind == "Job":
        known = {key: pod.labels[key] for key in (_CONTROLLER, _INDEX) if key in pod.labels}
    else:
        known = {_HASH: pod.labels[_HASH]} if kind == "ReplicaSet" and _HASH in pod.labels else {}
    if known:
        return {"labelSelector": ",".join(f"{key}={value}" for key, value in known.items())}
    return {"fieldSelector": f"metadata.name={pod.name}"}


def twin(pod: Pod, found: Iterable[Pod]) -> Pod | None:
    """The pod that runs elsewhere in the place of this one; None where none does."""
    for other in found:
        elsewhere = other.uid != pod.uid and other.node not in ("", pod.node)
        runs = other.phase == "Running" and other.deleting is None
        later = pod.created is None or other.created is None or other.created >= pod.created
        same = other.name == pod.name or (other.owner == pod.owner and pod.owner is not None and later)
        if elsewhere and runs and same:
            return other
    return None
