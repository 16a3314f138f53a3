"""Follow a record, and check all invariants of the operator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from invariants import calls, eviction_rules, start_rules, write_rules
from invariants.objects import deleting, move, node_of, released, uid
from invariants.records import Answer, Call, Change
from invariants.retry_rules import RetryLimits
from invariants.state import RecordedState
from invariants.wait_rules import WaitingDrains

Violations = Iterator[str]
_REFUSED = 400
CALLS: tuple[Callable[[Call], Violations], ...] = (
    calls.only_what_is_granted,
    calls.every_write_has_its_precondition,
    calls.grace_is_never_0,
)
CHANGES: tuple[Callable[[RecordedState, Change], Violations], ...] = (
    write_rules.nothing_of_others_is_touched,
    write_rules.no_other_pod_is_written,
    write_rules.what_is_added_was_recorded,
    write_rules.only_our_cordon_is_undone,
    write_rules.out_of_service_needs_proof,
    start_rules.policies_are_obeyed,
    start_rules.nothing_is_done_blindly,
    start_rules.no_storm_begins_a_failure,
    start_rules.failures_start_within_their_limit,
    start_rules.a_failure_is_one,
    start_rules.one_control_plane_node_at_a_time,
    start_rules.slots_are_kept,
    eviction_rules.only_pods_of_a_drain_go,
    eviction_rules.nothing_is_forced_without_right,
    eviction_rules.pods_leave_after_the_pod_that_controls_them,
    eviction_rules.served_as_before,
    eviction_rules.releases_are_few,
    eviction_rules.none_follows_one_that_is_not_replaced,
    write_rules.status_is_true,
)


@dataclass
class Checker:
    """Follow a record and check all invariants.

    Attributes:
        ours: users that are the operator.
        leader: namespace and name of the Lease that decides which user may write; None: all users are one.
        broken: violations so far.
    """

    state: RecordedState
    ours: frozenset[str]
    leader: tuple[str, str] | None = None
    broken: list[str] = field(default_factory=list)
    waiting: WaitingDrains = field(default_factory=WaitingDrains)
    retries: RetryLimits = field(default_factory=RetryLimits)
    ended: set[str] = field(default_factory=set)
    writes: int = 0

    def call(self, call: Call) -> None:
        """Check a request before its result is known."""
        if call.user in self.ours:
            self._say(call, (words for rule in CALLS for words in rule(call)))

    def answer(self, answer: Answer) -> None:
        """Check the result of a request, dry runs included."""
        if answer.call.user in self.ours:
            if answer.code >= _REFUSED:
                self.waiting.refused[answer.call.place] = answer.at
                if answer.call.verb == "patch" and answer.call.place.resource == "pods":
                    self.state.refused[answer.call.place.namespace, answer.call.place.name] = answer.at
            self._say(answer, self.retries.check(answer))

    def change(self, change: Change) -> None:
        """Check one revision of one object."""
        self.broken += self.waiting.check(self.state)
        ours = bool(change.call and change.call.user in self.ours)
        if ours and change.place.resource not in ("leases", "events"):
            self.writes += 1
            self._say(change, (words for rule in CHANGES for words in rule(self.state, change)))
            self._say(change, self._once(change))
        if ours and change.place.resource != "leases":
            self._say(change, self._leads(change))
        self._note_moves(change, ours=ours)
        if change.cordons:
            self.state.cordoned[change.place.name] = ours
        self.state.advance(change)

    def _note_moves(self, change: Change, *, ours: bool) -> None:
        """Record the operator's releases, and released pods that others removed."""
        state, pod = self.state, change.before or {}
        if ours and change.place.resource == "nodes":
            state.acted[change.place.name] = change.at
        if change.place.resource != "pods":
            return
        if ours:
            state.acted[node_of(pod)] = change.at
        if ours and change.releases:
            state.released_uids.add(uid(pod))
            if deployment := state.deployment_of(pod):
                state.first_released.setdefault(uid(deployment), change.at)
        if ours and change.after and state.released(pod) and not released(change.after):
            state.returned.add(move(pod)["deploymentUID"])
        gone = change.after is None or deleting(change.after) or not released(change.after)
        if not ours and pod and gone and not deleting(pod) and state.released(pod):
            state.lost[move(pod)["deploymentUID"]] = (change.at, move(pod))

    def _once(self, change: Change) -> Violations:
        if pod := change.ends:
            if uid(pod) in self.ended:
                yield "ends the same pod a second time"
            self.ended.add(uid(pod))

    def _leads(self, change: Change) -> Violations:
        lease = self.state.objects["leases"].get(self.leader) if self.leader else None
        if lease and change.call and lease["spec"]["holderIdentity"] != change.call.user:
            yield f"writes while {lease['spec']['holderIdentity'] or 'nobody'} holds the Lease"

    def _say(self, about: object, found: Violations) -> None:
        self.broken += [f"{about}: {words}" for words in found]
