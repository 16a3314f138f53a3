"""The mark on a pod that is deleted plainly: that this is a disruption, and no failure of the pod itself.

The eviction API and Kubernetes' own controllers set it (`DisruptionTarget`). A Job whose podFailurePolicy ignores
disruptions goes on elsewhere only if the pod has it before it ends.
"""

from datetime import datetime
from typing import Any

from rescheduler.api import names
from rescheduler.core.model.pods import Pod


def condition_patch(pod: Pod, now: datetime) -> dict[str, Any]:
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
