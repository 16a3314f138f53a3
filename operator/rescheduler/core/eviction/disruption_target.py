"""The pod condition `DisruptionTarget`, which marks a plain delete as a disruption and not as a failure of the pod.

The Eviction API and the controllers of Kubernetes set this condition too. A Job with a podFailurePolicy that ignores
disruptions continues elsewhere only if the pod has the condition before the pod ends.
"""

from datetime import datetime

from rescheduler.api import names
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject


def condition_patch(pod: Pod, now: datetime) -> RawObject:
    """Return the strategic merge patch of the pod's status."""
    version = {"resourceVersion": pod.resource_version} if pod.resource_version else {}
    condition = {
        "type": names.DISRUPTION_TARGET,
        "status": "True",
        "reason": "DeletionByRescheduler",
        "message": "Rescheduler: deleting, because the pod's node is drained or has failed",
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {"metadata": {"uid": pod.uid, **version}, "status": {"conditions": [condition]}}
