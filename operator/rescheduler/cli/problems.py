"""Problems of drains: pure functions from raw NodeDrains to what keeps them from going on, the worst first."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rescheduler.api.untrusted import parse_time
from rescheduler.cli import messages
from rescheduler.cli.operator_lease import Leader
from rescheduler.cli.output import format_span
from rescheduler.cli.progress import is_unobserved, wait_message, waiting_lines
from rescheduler.core.model.messages import listing
from rescheduler.core.model.raw import RawObject

MAX_BLOCKERS = 10
_LATEST = datetime.max.replace(tzinfo=UTC)
_SETTLING_TIME = timedelta(minutes=1)  # before this, a restore or an unread NodeDrain is no problem
_BLOCKED_KEEPS_SLOT_FOR = timedelta(minutes=5)  # as core.eligibility.concurrency, whose import takes too long


@dataclass(frozen=True, slots=True)
class Problem:
    """Cause that keeps drains from going on, and the next step. `hint`: may be empty."""

    text: str
    hint: str = ""
    severe: bool = False


def find_problems(drains: Sequence[RawObject], leaders: Sequence[Leader] | None, now: datetime) -> list[Problem]:
    """Return the problems of all drains, the worst first. `leaders`: None if it is not known who leads."""
    problems = []
    if leaders is not None and not any(leader.current for leader in leaders):
        problems.append(Problem(messages.NO_OPERATOR, messages.OPERATOR_HINT, severe=True))
    unread = [drain for drain in drains if is_unobserved(drain) and _age(drain, now) > _SETTLING_TIME]
    if unread:
        problems.append(Problem(messages.unread(listing(_names(unread))), messages.OPERATOR_HINT, severe=True))
    return [
        *problems,
        *blocker_problems(drains, now, MAX_BLOCKERS),
        *wait_problems(drains, now),
        *other_problems(drains, now),
        *(Problem(line) for line in waiting_lines(drains)),
    ]


def slot_lines(drains: Iterable[RawObject], now: datetime) -> list[str]:
    """Return for each policy which drains for maintenance hold its slots, and which wait for one."""
    holders: dict[str, list[str]] = defaultdict(list)
    queued: dict[str, list[str]] = defaultdict(list)
    for drain in sorted(drains, key=_start):
        status = drain.get("status") or {}
        policy, name = (status.get("policy") or {}).get("name"), drain["metadata"]["name"]
        if policy and holds_slot(drain, now):
            holders[policy].append(f"{name} ({format_span(now - _start(drain))})")
        elif policy and _condition(drain, "Progressing").get("reason") == "MaxConcurrent":
            queued[policy].append(name)
    return [
        messages.slots(policy, listing(holders[policy]), listing(queued[policy]))
        for policy in sorted({*holders, *queued})
    ]


def holds_slot(drain: RawObject, now: datetime) -> bool:
    """Whether a drain for maintenance or by hand takes a slot of `maintenance.maxConcurrent`."""
    status = drain.get("status") or {}
    if all(request["reason"] == "Failure" for request in drain["spec"]["requests"]):
        return False
    if not status.get("startedAt") or status.get("drainedAt") or status.get("phase") == "Waiting":
        return False
    blocked = _condition(drain, "Blocked")
    since = parse_time(blocked.get("lastTransitionTime")) if blocked.get("status") == "True" else None
    return not (status.get("phase") == "Blocked" and since and now - since >= _BLOCKED_KEEPS_SLOT_FOR)


def blocker_problems(drains: Iterable[RawObject], now: datetime, limit: int) -> list[Problem]:
    """Return the oldest blockers of all drains, and the number of the others."""
    found = [
        (parse_time(blocker.get("since")) or now, drain["metadata"]["name"], blocker)
        for drain in drains
        for blocker in (drain.get("status") or {}).get("blockers") or ()
    ]
    found.sort(key=lambda each: each[:2])
    problems = []
    for since, node, blocker in found[:limit]:
        pod = f"{blocker['namespace']}/{blocker['pod']}"
        span = format_span(max(now - since, timedelta()))
        text = messages.blocked_pod_for(pod, blocker["class"], span, blocker.get("message", ""))
        problems.append(Problem(f"{node}: {text}", blocker.get("hint", ""), severe=True))
    total = sum(int((drain.get("status") or {}).get("blockersTotal") or 0) for drain in drains)
    if total > len(problems):
        problems.append(Problem(messages.more_blockers(total - len(problems)), messages.BLOCKERS_HINT, severe=True))
    return problems


def wait_problems(drains: Iterable[RawObject], now: datetime) -> list[Problem]:
    """Return a problem for each reason why drains wait, the longest wait first."""
    waiting: dict[str, list[RawObject]] = defaultdict(list)
    for drain in drains:
        if (drain.get("status") or {}).get("phase") == "Waiting" and (message := wait_message(drain)):
            waiting[message].append(drain)
    groups = [
        (min(parse_time(_condition(d, "Progressing").get("lastTransitionTime")) or now for d in group), message, group)
        for message, group in waiting.items()
    ]
    return [
        Problem(
            messages.waits(listing(_names(group)), len(group), format_span(max(now - since, timedelta())), message),
            _wait_hint(group),
        )
        for since, message, group in sorted(groups, key=lambda group: group[:2])
    ]


def _wait_hint(group: Sequence[RawObject]) -> str:
    if _condition(group[0], "Progressing").get("reason") != "Gated":
        return ""
    return messages.approve_hint(group[0]["metadata"]["name"])


def other_problems(drains: Iterable[RawObject], now: datetime) -> list[Problem]:
    """Return restores that take long, and what the operator reports of drains that have begun."""
    problems = []
    for drain in drains:
        status, name = drain.get("status") or {}, drain["metadata"]["name"]
        deleted = parse_time(drain["metadata"].get("deletionTimestamp"))
        progressing = _condition(drain, "Progressing")
        if deleted and now - deleted > _SETTLING_TIME:
            problems.append(
                Problem(messages.restoring(name, format_span(now - deleted), progressing.get("message", "")))
            )
        elif not deleted and status.get("phase") in ("Draining", "Blocked") and (message := wait_message(drain)):
            problems.append(Problem(f"{name}: {message}"))
    return problems


def _condition(drain: RawObject, kind: str) -> RawObject:
    conditions = (drain.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _names(drains: Iterable[RawObject]) -> list[str]:
    return [drain["metadata"]["name"] for drain in drains]


def _start(drain: RawObject) -> datetime:
    return parse_time((drain.get("status") or {}).get("startedAt")) or _LATEST


def _age(drain: RawObject, now: datetime) -> timedelta:
    created = parse_time(drain["metadata"].get("creationTimestamp"))
    return now - created if created else timedelta()
