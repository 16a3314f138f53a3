"""Protection of a pod against disruption: the annotation of Rescheduler, and the opt-outs of other tools.

An opt-out asks another tool to leave the pod alone. A drain waits for the opt-outs of the tools in `drain.honour`.
Rebalancing and pools never move a pod with an opt-out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rescheduler.api import names
from rescheduler.api.policies import OptOutTool
from rescheduler.api.scalars import parse_duration
from rescheduler.core.eviction import messages
from rescheduler.core.model.pods import Pod

FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OptOut:
    """An annotation by which a pod asks another tool not to disrupt it.

    Attributes:
        tool: the tool that the annotation is for.
        annotation: the key of the annotation.
        until: the end of the protection; FOREVER if there is no end.
    """

    tool: OptOutTool
    annotation: str
    until: datetime = FOREVER


def protected_until(pod: Pod, now: datetime) -> datetime | None:
    """Return the end of the protection by `do-not-disrupt`; FOREVER: no end; None: no protection.

    Raises:
        ValueError: the value of the annotation is invalid and protects nothing.
    """
    value = pod.annotations.get(names.DO_NOT_DISRUPT)
    if value is None or value == "false":
        return None
    if value == "true":
        return FOREVER
    if not (duration := parse_duration(value)):
        raise ValueError(messages.no_protection(value))
    return _end_after(pod, duration, now)


def opt_outs(pod: Pod, now: datetime) -> tuple[OptOut, ...]:
    """Return the opt-outs of other tools that hold now."""
    found = (
        (tool, annotation, until_of(pod, pod.annotations[annotation], now))
        for tool, annotation, until_of in _OPT_OUTS
        if annotation in pod.annotations
    )
    return tuple(OptOut(tool, annotation, until) for tool, annotation, until in found if until)


def _karpenter_until(pod: Pod, value: str, now: datetime) -> datetime | None:
    """Return the end of the opt-out. A value that Rescheduler cannot read has no end: in doubt the pod stays."""
    if value == "false":
        return None
    try:
        duration = parse_duration(value)
    except ValueError:
        return FOREVER
    return _end_after(pod, duration, now)


def _cluster_autoscaler_until(_pod: Pod, value: str, _now: datetime) -> datetime | None:
    return FOREVER if value == "false" else None


def _descheduler_until(_pod: Pod, _value: str, _now: datetime) -> datetime | None:
    """Return FOREVER: the descheduler checks only that the annotation is there."""
    return FOREVER


def _end_after(pod: Pod, duration: timedelta, now: datetime) -> datetime | None:
    """Return when a duration from the start of the pod ends; None if it is over."""
    until = pod.started + duration if pod.started else FOREVER
    return until if until > now else None


_OPT_OUTS: tuple[tuple[OptOutTool, str, Callable[[Pod, str, datetime], datetime | None]], ...] = (
    (OptOutTool.KARPENTER, names.KARPENTER_DO_NOT_DISRUPT, _karpenter_until),
    (OptOutTool.CLUSTER_AUTOSCALER, names.SAFE_TO_EVICT, _cluster_autoscaler_until),
    (OptOutTool.DESCHEDULER, names.PREFER_NO_EVICTION, _descheduler_until),
)
