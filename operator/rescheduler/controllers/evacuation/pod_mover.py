"""The pods of one node being drained: which go now, how, and what holds the others."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from rescheduler.api.drains import BlockerClass, NodeDrainStatus
from rescheduler.api.policies import Drain, Policy
from rescheduler.controllers.evacuation.budget_watch import Budgets
from rescheduler.controllers.evacuation.eviction_queue import Evictions, Sender
from rescheduler.controllers.evacuation.planner import Plans
from rescheduler.controllers.evacuation.replacer import Replacements
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain import capacity, pod_summary
from rescheduler.core.drain.eta import Paces
from rescheduler.core.drain.pod_summary import Tally
from rescheduler.core.drain.state_machine import QUIET
from rescheduler.core.eviction import pod_actions
from rescheduler.core.eviction.api_responses import Answer, Outcome
from rescheduler.core.eviction.pod_actions import Circumstances, Fate, Premise, Verdict
from rescheduler.core.model import pods
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import STUCK, Volumes
from rescheduler.core.pools import move_selection
from rescheduler.core.replacement.decisions import Choice, Way
from rescheduler.core.replacement.move_history import Lineages
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.informers import Mirror

log = structlog.get_logger("rescheduler.node_pods")

PATIENCE = timedelta(seconds=5)
"""A budget that waits for the last pod's replacement is no blocker yet."""
_MARKED = timedelta(seconds=15)
"""The node controller marks all pods of a node that turns ill; a living kubelet sets them back within 10 s."""
_SENT = (Way.PLAIN, Way.EVICT, Way.DELETE)
_LOOK_AT_OWNER = "look at the owner of the pod: kubectl describe its Deployment and ReplicaSet"
_MOST_TAKEN = 50  # remembered, to be named


@dataclass(frozen=True, slots=True)
class Movers:
    """What moves pods, shared by all drains."""

    client: Client
    clock: Clock
    budgets: Budgets
    evictions: Evictions
    replacements: Replacements
    metrics: Metrics
    lineages: Lineages
    plans: Plans


class NodePods:
    """The pods of one drain's node, from the cordon on; or those of them that an errand names.

    Attributes:
        errand: by uid, what the pods are moved for that are to be moved; None: all of them, for the drain.
        moved: how many have left so far.
        last_move: when one last left or was on its way.
        unseen: which view was missing at the last look; empty if none was.
    """

    def __init__(
        self,
        name: str,
        movers: Movers,
        wake: Callable[[], None],
        confirm: Callable[[Pod, Verdict], Awaitable[str]] | None = None,
    ) -> None:
        self._name, self._t, self._wake = name, movers, wake
        self._sender = Sender(wake, confirm)
        self._mirror: Mirror[Pod] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._leaving: dict[str, Pod] = {}
        self._choices: Mapping[str, Choice] = {}
        self._refused: dict[str, datetime] = {}
        self._unready: dict[str, datetime] = {}  # by pod uid: since when it was seen not to be Ready
        self._taken: list[Pod] = []  # released pods that somebody else removed
        self._left_behind: dict[str, datetime] = {}  # by volume: since when no pod uses it
        self._serial = Volumes()
        self._paces = Paces()
        self.errand: Mapping[str, str] | None = None
        self.moved: int | None = None
        self.last_move: datetime | None = None
        self.unseen = ""

    @property
    def synced(self) -> bool:
        """The node's pods are known for sure."""
        return self._mirror is not None and self._mirror.synced

    @property
    def impatient(self) -> bool:
        """A budget refuses and is no blocker yet: time alone makes it one."""
        return bool(self._refused)

    def patience(self, now: datetime) -> float:
        """Return the seconds until a refusal has lasted for so long that it is a blocker."""
        left = [PATIENCE - (now - since) for since in self._refused.values() if now - since < PATIENCE]
        return min(left, default=PATIENCE).total_seconds()

    @property
    def traces(self) -> bool:
        """Whether a pod here is released, or returned and still has the record; one that has ended is not waited for."""
        return any(pod.move and not pod.deleting and not pod.finished for pod in self.rows())

    @property
    def traces_held(self) -> bool:
        """Whether none of these can be returned for now."""
        rows = [pod for pod in self.rows() if pod.move and not pod.deleting and not pod.finished]
        return all((choice := self._choices.get(pod.uid)) and choice.way is Way.HOLD for pod in rows)

    @property
    def left_released(self) -> bool:
        """Whether a pod here is released: whoever stops looking after this node hands it on."""
        return any(pod.released and not pod.deleting for pod in self.rows())

    def returning(self) -> tuple[str, ...]:
        """Return those pods by namespace/name."""
        return tuple(sorted(pod.key for pod in self.rows() if pod.move and not pod.deleting and not pod.finished))

    def uids(self) -> Mapping[str, str]:
        """UIDs by namespace/name."""
        return {pod.key: pod.uid for pod in self._mirror.items.values()} if self._mirror else {}

    def owners(self) -> Mapping[str, pods.Owner]:
        """Controllers by namespace/name of their pod."""
        rows = self._mirror.items.values() if self._mirror else ()
        return {pod.key: pod.owner for pod in rows if pod.owner}

    def rows(self) -> Collection[Pod]:
        """The node's pods, as far as they are known."""
        return self._mirror.items.values() if self._mirror else ()

    def busy(self, volumes: Volumes) -> bool:
        """Whether something here is Terminating, or attached though no pod uses it; or that is not known."""
        return not self.synced or any(pod.deleting for pod in self.rows()) or bool(volumes.detaching(self.rows()))

    def occupying(self, volumes: Volumes) -> tuple[str, ...]:
        """Return what keeps the node busy: Terminating pods and attached volumes."""
        ending = sorted(f"pod {pod.key} is Terminating" for pod in self.rows() if pod.deleting)
        return (*ending, *sorted(f"volume {name} is attached" for name in volumes.detaching(self.rows())))

    def follow(self, node_name: str) -> None:
        """Keep the pods of the node in view."""
        if self._mirror is None:
            here = {"fieldSelector": f"spec.nodeName={node_name}"}
            self._mirror = Mirror(self._t.client, paths.PODS, pods.pod, self._wake, params=here)
            self._watch = asyncio.create_task(self._mirror.run(), name=f"pods of {node_name}")

    def close(self) -> None:
        """Let go of everything; nothing is sent any more."""
        self._t.budgets.hold(self._name, ())
        self._t.replacements.close(self._name)
        self._t.plans.close(self._name)
        self._t.evictions.close(self._sender)
        self._t.budgets.forget({pod.uid for pod in self.rows()})
        if self._watch:
            self._watch.cancel()

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(
        self, status: NodeDrainStatus, settings: Drain, seen: Circumstances, *, may_move: bool, early: bool = False
    ) -> Tally | None:
        """Judge every pod; None while they are not known. `may_move`: the drain may go on; `early`: by a suspicion."""
        if self._mirror is None or not self._mirror.synced:
            why = f" ({self._mirror.error})" if self._mirror and self._mirror.error else ""
            self.unseen = f"the pods of the node are not listed yet{why}"
            return None
        self._choices = {}
        judged = [(pod, self._judge(pod, settings, seen)) for pod in self._mirror.items.values() if self._cause(pod)]
        judged.sort(key=lambda row: (row[1].order, row[0].priority, row[0].key))
        held = {pod.namespace for pod, verdict in judged if verdict.fate is Fate.EVICT or pod.move}
        self._t.budgets.hold(self._name, held)
        if not self._t.budgets.known(held):
            self.unseen = self._t.budgets.missing(sorted(held))
            return None
        said = {f"{b.namespace}/{b.pod}": b for b in status.blockers}
        forecasts = self._forecasts(judged, seen, wait=may_move and not early)
        if forecasts is None:
            self.unseen = "the plan for its pods is not made yet"
            return None
        choices = self._t.replacements.look(
            self._name, judged, settings, seen.now, may_move=may_move, said=said, early=early, forecasts=forecasts
        )
        if choices is None:
            self.unseen = self._t.replacements.missing(self._name)
            return None
        self.unseen = ""
        if may_move:
            choices |= capacity.held(judged, choices, forecasts, settings, may_stay=self.errand is not None)
        self._choices = choices
        judged = [(pod, _sent(verdict, choices.get(pod.uid))) for pod, verdict in judged]
        judged = self._past_budgets(judged, choices, seen)
        known = {pod.uid for pod, _ in judged if pod.key in said}
        refusals = self._lasting(self._refusals(judged, choices), known, seen.now)
        since = {(b.namespace, b.pod, str(b.class_)): b.since for b in status.blockers}
        waiting = {uid for uid, choice in choices.items() if choice.way not in _SENT and choice.way is not Way.HOLD}
        detaching, hanging = self._left_attached(seen)
        self._note_taken(settings, seen.now)
        tally = pod_summary.tally(
            judged,
            self._sender.attempts,
            refusals,
            since,
            seen.now,
            unreachable=seen.unreachable,
            waiting=frozenset(waiting),
            replacement_timeout=settings.replacement_timeout,
        )
        must = [(pod, v) for pod, v in judged if pod.uid in tally.leaving]
        lines = self._paces.lines(
            must, self._sole(pod for pod, _ in must), seen.active, grace=settings.grace_period_seconds
        )
        tally = replace(tally, detaching=detaching, hanging=hanging, lines=lines, taken=tuple(self._taken))
        if self.errand is None and (unreadable := self._mirror.unreadable):
            tally = pod_summary.with_unreadable(tally, unreadable, since, seen.now)
        self._serial = seen.volumes
        self._count(status, tally, seen.now)
        return tally

    def _note_taken(self, settings: Drain, now: datetime) -> None:
        """Note released pods that have gone though nobody was asked to evict them."""
        here = {pod.uid for pod in self.rows()} | (self._mirror.unread if self._mirror else frozenset())
        gone = [self._t.replacements.last_seen(pod) for pod in self._leaving.values() if pod.uid not in here]
        self._t.replacements.note_taken(gone, settings, now)
        known = {pod.uid for pod in self._taken}
        lost = [pod for pod in self._leaving.values() if self._t.replacements.taken(pod.uid) and pod.uid not in known]
        self._taken = [*self._taken, *lost][-_MOST_TAKEN:]

    def _forecasts(
        self, judged: list[tuple[Pod, Verdict]], seen: Circumstances, *, wait: bool
    ) -> capacity.Forecasts | None:
        """What the plan says of the pods; None while it is worth waiting for.

        Those of a node that does not answer serve nobody: they go, room or not, and so do those that serve nobody on
        one that is ill.
        """
        if seen.unreachable:
            return {}
        homeless = [pod for pod, verdict in judged if self._is_planned(pod) and pod_actions.needs_a_place(pod, verdict)]
        found = self._t.plans.look(self._name, homeless, seen.volumes, wait=wait and not seen.failing)
        if found is None or not seen.failing:
            return found
        return {pod.uid: found[pod.uid] for pod in homeless if pod.ready and pod.uid in found}

    def _is_planned(self, pod: Pod) -> bool:
        """Whoever moves pods for the sake of evenness has looked at their places already."""
        return self.errand is None or self._cause(pod).startswith(move_selection.CAUSE)

    def _judge(self, pod: Pod, settings: Drain, seen: Circumstances) -> Verdict:
        if self.errand is not None and pod.uid not in self.errand and not pod.deleting:
            return Verdict(Fate.STAY)  # released, and not wanted any more: it is returned
        return pod_actions.judge(pod, settings, seen)

    def _cause(self, pod: Pod) -> str:
        """What the pod is moved for; empty where it is none of those. Whoever was let go of is looked after to the end."""
        if self.errand is None:
            return f"NodeDrain/{self._name}"
        return self.errand.get(pod.uid) or (pod.move.cause if pod.move else "")

    def _left_attached(self, seen: Circumstances) -> tuple[frozenset[str], frozenset[str]]:
        """Volumes that pods have left behind: those to wait for, and those that have hung for too long."""
        silent = seen.unreachable and not seen.dead  # nobody detaches anything there
        found = frozenset() if silent else seen.volumes.detaching(self.rows())
        self._left_behind = {name: self._left_behind.get(name, seen.now) for name in found}
        hanging = frozenset(name for name, since in self._left_behind.items() if seen.now - since >= STUCK)
        return found - hanging, hanging

    def _past_budgets(
        self, judged: list[tuple[Pod, Verdict]], choices: Mapping[str, Choice], seen: Circumstances
    ) -> list[tuple[Pod, Verdict]]:
        """On a failed node that is alive a pod that serves nobody, and may run twice, does not wait for its budget."""
        self._unready = {pod.uid: self._unready.get(pod.uid, seen.now) for pod, _ in judged if not pod.ready}
        if not seen.failing or seen.unreachable:
            return judged
        sent = [row for row in judged if row[0].uid not in choices or choices[row[0].uid].way in _SENT]
        refused = self._t.evictions.refusals(sent).keys()
        lost = {uid for uid, since in self._unready.items() if seen.now - since >= _MARKED and uid in refused}
        return [(pod, pod_actions.past_budget(pod, v, seen) if pod.uid in lost else v) for pod, v in judged]

    def _refusals(
        self, judged: list[tuple[Pod, Verdict]], choices: Mapping[str, Choice]
    ) -> dict[str, tuple[Answer, timedelta]]:
        """What would be refused now, and how long it may be before it is said."""
        sent = [(p, v) for p, v in judged if p.uid not in choices or choices[p.uid].way in _SENT]
        found = {uid: (answer, PATIENCE) for uid, answer in self._t.evictions.refusals(sent).items()}
        for uid, choice in choices.items():
            if choice.cause:
                answer = Answer(Outcome.REFUSED, choice.cause, choice.message, choice.hint)
                found[uid] = (answer, timedelta())
            elif choice.way is Way.WAIT and choice.why:
                answer = Answer(Outcome.REFUSED, BlockerClass.REPLACEMENT_NOT_READY, choice.why, _LOOK_AT_OWNER)
                found[uid] = (answer, QUIET)
        return found

    def _lasting(
        self, refusals: dict[str, tuple[Answer, timedelta]], known: Collection[str], now: datetime
    ) -> dict[str, Answer]:
        """Those refusals that have lasted: most budgets have room again as soon as a replacement is Ready.

        `known`: uids of those that the status names already, perhaps since before our start.
        """
        self._refused = {uid: self._refused.get(uid, now - PATIENCE if uid in known else now) for uid in refusals}
        return {uid: answer for uid, (answer, wait) in refusals.items() if now - self._refused[uid] >= wait}

    def _sole(self, rows: Iterable[Pod]) -> dict[str, Budget]:
        """The budget of each pod that has just one, by the pod's uid."""
        return {pod.uid: found[0] for pod in rows if (found := self._t.budgets.of(pod) or ()) and len(found) == 1}

    def _count(self, status: NodeDrainStatus, tally: Tally, now: datetime) -> None:
        """How many have left: those that had to go and are not there any more."""
        if self.moved is None:
            # What is Terminating for good was counted there, and is counted again.
            before = status.pods.moved if status.pods else 0
            self.moved = max(0, before - (tally.objects - tally.remaining))
        gone = self._leaving.keys() - tally.leaving - (self._mirror.unread if self._mirror else frozenset())
        if gone:
            moved = {uid for uid in gone if not self._t.replacements.taken(uid)}
            self.moved += len(moved)
            left = self._sole(self._leaving[uid] for uid in gone)
            for uid in gone:
                self._paces.left(left.get(uid))
            for uid in moved:
                self._t.replacements.replaced(self._t.replacements.last_seen(self._leaving[uid]))
            self._t.metrics.pods_moved.inc(len(moved))
            self._t.metrics.pods_moved_again.inc(sum(self._t.lineages.moved(self._leaving[uid], now) for uid in gone))
            self._t.evictions.forget(self._sender, list(gone))
            self._t.budgets.forget(gone)
            self._t.replacements.forget(gone)
        if gone or tally.in_flight:
            self.last_move = now
        self._leaving = {pod.uid: pod for pod in self.rows() if pod.uid in tally.leaving}

    # -- acting -------------------------------------------------------------------------------------------------------

    def move(self, tally: Tally, policy: Policy, settings: Drain, *, begun: bool = False) -> float | None:
        """Start what may be started now; seconds until more may be, None where only an event can tell.

        `begun`: only pods that were let go of are moved, and no other.
        """
        turn = []
        busy = bool(tally.detaching) or any(
            self._serial.one_by_one(pod) for pod in self.rows() if self._on_its_way(pod)
        )
        # By priority, the highest first: what matters most is attached elsewhere first.
        for pod, verdict in sorted(tally.next, key=lambda row: -row[0].priority if row[0].volume_claims else 0):
            if begun and not pod.move:
                continue
            # By proof all volumes are let go at once: none waits for another's.
            if self._serial.one_by_one(pod) and not verdict.forced and verdict.premise is not Premise.DEAD:
                if busy and not self._on_its_way(pod):
                    continue
                busy = True
            choice = self._choices.get(pod.uid)
            if choice:
                self._t.replacements.act(self._name, pod, choice, self._cause(pod))
            if choice is None or choice.way in _SENT:
                turn.append((pod, verdict))
        self._tidy(tally)
        self._sender.grace = settings.grace_period_seconds
        rate = settings.max_evictions_per_second
        return self._t.evictions.send(self._sender, turn, policy=policy.name, rate=rate)

    def release(self) -> None:
        """Release pods so that their replacements come up; none is evicted or deleted."""
        for pod in self.rows():
            if (choice := self._choices.get(pod.uid)) and choice.way in (Way.RELEASE, Way.CLEAR):
                self._t.replacements.act(self._name, pod, choice, self._cause(pod))

    def _on_its_way(self, pod: Pod) -> bool:
        return pod.deleting is not None or pod.uid in self._t.evictions.going()

    def _tidy(self, tally: Tally) -> None:
        """What a move left on pods whose turn it is not."""
        turn = {pod.uid for pod, _ in tally.next}
        self.give_back(lambda pod: pod.uid not in turn)

    def give_back(self, which: Callable[[Pod], bool] = lambda _: True) -> None:
        """Return released pods, and clear the records of those returned; nothing else is moved."""
        for pod in self._mirror.items.values() if self._mirror else ():
            choice = self._choices.get(pod.uid)
            if choice and pod.move and which(pod) and choice.way in (Way.RETURN, Way.CLEAR):
                self._t.replacements.act(self._name, pod, choice)

    def finish(self, policy: str) -> None:
        """Of a drain that ends: pods that cannot be returned go as those of their ReplicaSets would have gone."""
        rest = [
            (pod, Verdict(Fate.DELETE if choice.way is Way.DELETE else Fate.EVICT))
            for pod in (self._mirror.items.values() if self._mirror else ())
            if (choice := self._choices.get(pod.uid)) and pod.move and choice.way in (Way.DELETE, Way.EVICT)
        ]
        self._t.evictions.send(self._sender, rest, policy=policy, rate=20)


def _sent(verdict: Verdict, choice: Choice | None) -> Verdict:
    """A pod that its owner wants no more is deleted plainly: eviction is refused for ever where a budget expects 0."""
    if choice and choice.way is Way.DELETE and verdict.fate is Fate.EVICT:
        return Verdict(Fate.DELETE, verdict.order)
    return verdict
