"""Proof that the node of one drain is dead, and the taint that then takes it out of service.

A pod forced off a node that lives runs twice, and two writers spoil a volume. So the node and its Lease are read live
before each act, every write carries what it rests on, and whatever does not fit ends it.
"""

from collections.abc import Iterable
from dataclasses import replace

import structlog

from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Force, Policy
from rescheduler.controllers.drain.events import Announcer
from rescheduler.controllers.drain.node_writer import Keeper, Write
from rescheduler.controllers.failure.lease_monitor import Heartbeats
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable
from rescheduler.controllers.runtime.store import Store
from rescheduler.core.drain import node_patches, status
from rescheduler.core.eligibility import preconditions
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.pod_actions import Premise, Verdict
from rescheduler.core.failure import duplicate_pods, fencing
from rescheduler.core.failure.fencing import ALIVE, Act, Standing
from rescheduler.core.model import pods
from rescheduler.core.model.nodes import UNREACHABLE, Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.wait_reasons import Held, Hold
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, Client

log = structlog.get_logger("rescheduler.fences")

_EVERY = 2.0  # seconds between two reads of a Lease while one waits for it to be silent for long enough
_WATCHED = 60.0  # seconds: the pod garbage collector may act so long on a taint that is gone (k/k#141887)
_MOST_TWINS = 20


class Fence:
    """One drain's.

    Attributes:
        impatient: time alone would turn what is known into proof.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        announcer: Announcer,
        heartbeats: Heartbeats,
        keeper: Keeper,
    ) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._announcer, self._heartbeats, self._keeper = announcer, heartbeats, keeper
        self.impatient = False
        self._judged: tuple[NodeDrain, Node] | None = None
        self._silent: tuple[float, str] = (float("-inf"), "")
        self._taken: dict[str, Pod] = {}  # by uid: pods taken off by proof
        self._looked_for_twins = float("-inf")
        self._lifted_at = float("-inf")
        self._booted: tuple[str, float] = ("", 0.0)  # a boot that came after the failure, and when it was first seen

    # -- looking ------------------------------------------------------------------------------------------------------

    async def look(self, drain: NodeDrain, here: Node, policy: Policy | None, *, failing: bool) -> Standing:
        """Where the drain stands with the failure of its node; `failing`: it is acted on, and holds."""
        self._judged, self.impatient = (drain, here), False
        returned = await self._returned(drain, here)
        if policy and not policy.spec.failure.enabled:
            return Standing(returned=returned, hint="failure.enabled is false: let the node come back")
        if not failing or here.ready == ALIVE or policy is None:
            return Standing(failing=failing, returned=returned, hint=fencing.hint(here))
        if policy.spec.failure.force is Force.NEVER:
            hint = "failure.force is Never: let the node come back, or delete the Node once its machine is gone"
            return Standing(failing=True, forbidden=True, hint=hint)
        found = self._find(drain, here)
        if found.refused:
            self._announcer.attestation_refused(here, found.refused)
        proof, doubts = found.proof, found.doubts
        if proof and (why := await self._lives(here)):
            self.impatient = True
            proof, doubts = None, (*doubts, why)
        return Standing(failing=True, proof=proof, doubts=doubts, hint=fencing.hint(here))

    def _find(self, drain: NodeDrain, here: Node) -> fencing.Finding:
        record = drain.status.node
        same = record is not None and (record.uid, record.boot_id) == (here.uid, here.boot_id)
        fenced = (c.reason for c in drain.status.conditions if c.type == "Fenced" and c.status == "True")
        known = next(fenced, "") if same else ""
        ours = fencing.recorded(here, record)
        return fencing.find(here, self._store.witness(here.name), ours=ours, known=known, now=self._clock.now())

    async def _lives(self, here: Node) -> str:
        """Why the node may not be dead, by its Lease; empty where that is silent."""
        now = self._clock.monotonic()
        if now - self._silent[0] >= _EVERY:
            self._silent = (now, await self._heard_of(here))
        return self._silent[1]

    async def _heard_of(self, here: Node) -> str:
        try:
            silent = await self._heartbeats.silent_for_long(here)
        except TRANSIENT as error:
            return f"its Lease cannot be read ({error})"
        return "" if silent else "its Lease has not been silent for long enough: its kubelet may live"

    def rest(self, drain: NodeDrain, here: Node, policy: Policy | None) -> Held | None:
        """Why nothing is moved off a node that is coming back; None where it may be."""
        record = drain.status.node
        if fencing.returned(here, record):
            return Held(
                Hold.CANCELLED,
                "the boot that was said to be dead is back: the node stays cordoned and out of service "
                "until nothing there is Terminating or attached any more",
            )
        if self._clock.monotonic() - self._lifted_at < _WATCHED:
            return Held(Hold.CANCELLED, "the node was out of service until just now: nothing is moved for a minute")
        anew = record is not None and record.boot_id not in ("", here.boot_id)
        booting = anew and here.ready not in (ALIVE, UNREACHABLE) and preconditions.only_failed(drain)
        return self._booting(here, policy) if booting else None

    def _booting(self, here: Node, policy: Policy | None) -> Held | None:
        """A node that has booted anew is given the time that its condition is: its pods restart in place."""
        now = self._clock.monotonic()
        if self._booted[0] != here.boot_id:
            self._booted = (here.boot_id, now)
        matches = policy.spec.failure.conditions if policy else ()
        given = max(
            (m.for_.total_seconds() for m in matches if m.type == "Ready" and here.ready in m.status), default=0
        )
        if now - self._booted[1] >= given:
            return None
        return Held(Hold.CANCELLED, "the node has booted anew: its pods restart in place, and nothing is moved for now")

    # -- acting -------------------------------------------------------------------------------------------------------

    async def confirm(self, pod: Pod, verdict: Verdict) -> str:
        """Why the pod may not go after all, from what the cluster says now; empty where it may."""
        if self._judged is None or self._store.blind():
            return "what is seen of the nodes is not to be acted on now"
        drain, judged = self._judged
        if verdict.premise is Premise.DEAD:
            if await self._prove(drain, judged) is None:
                return "its node is not proven dead any more"
            self._taken[pod.uid] = pod
            return ""
        found = await self._keeper.recent(judged.name)
        same = found is not None and _identity(found) == _identity(judged)
        return "" if same else "its node is not as it was just before"

    async def _prove(self, drain: NodeDrain, judged: Node) -> Node | None:
        """The node as read now, where its boot is still proven dead, and its Lease still silent; else None."""
        live = await self._keeper.live(judged.name)
        if live is None or _identity(live) != _identity(judged) or not self._find(drain, live).proof:
            return None
        return live if await self._heartbeats.silent_for_long(live) else None

    async def tend(
        self,
        scene: status.Scene,
        here: Node,
        lost: Iterable[Pod],
        *,
        due: bool,
        busy: bool,
        may_set: bool,
        write: Write,
    ) -> status.Scene:
        """Set the taint, take it off, or leave it; `lost`: pods that it lets go."""
        act = fencing.act(here, scene.record, due=due, busy=busy)
        wanted = act in (Act.SET, Act.LIFT)
        if not self._keeper.may(write_refusals.Act.OUT_OF_SERVICE, wanted=wanted) and wanted:
            return scene
        match act:
            case Act.SET if may_set:
                return await self._set(scene, here, lost, write)
            case Act.LIFT:
                return await self._lift(scene, here, busy=busy)
            case Act.FORGET:
                return await self._forget(scene, here, due=due, busy=busy)
        return scene

    async def _set(self, scene: status.Scene, here: Node, lost: Iterable[Pod], write: Write) -> status.Scene:
        record = node_patches.out_of_service_record(here, scene.record)
        scene = replace(scene, record=record)
        if record != scene.drain.status.node:
            await write(scene, now=True)
        drain = self._store.drain(scene.drain.name) or scene.drain
        live = await self._prove(drain, here)
        if live is None or (patch := node_patches.out_of_service_patch(live)) is None:
            return replace(scene, drain=drain)
        if not await self._keeper.attempt(write_refusals.Act.OUT_OF_SERVICE, live, patch):
            return replace(scene, drain=drain)
        self._taken |= {pod.uid: pod for pod in lost}
        log.info("node.out_of_service", node=here.name, drain=drain.name, uid=here.uid, boot=here.boot_id)
        self._announcer.out_of_service(scene, here)
        return replace(scene, drain=drain)

    async def _lift(self, scene: status.Scene, here: Node, *, busy: bool) -> status.Scene:
        live = await self._keeper.live(here.name)
        if (
            live is None
            or scene.record is None
            or fencing.act(live, scene.record, due=False, busy=busy) is not Act.LIFT
        ):
            return scene
        if patch := node_patches.in_service_patch(live):
            if not await self._keeper.attempt(write_refusals.Act.OUT_OF_SERVICE, live, patch):
                return scene
            self._lifted_at = self._clock.monotonic()
            log.info("node.in_service", node=live.name, drain=scene.drain.name, uid=live.uid, boot=live.boot_id)
            self._announcer.in_service(scene, live, rebooted=live.boot_id != scene.record.boot_id)
        return replace(scene, record=node_patches.in_service_record(scene.record))

    async def _forget(self, scene: status.Scene, here: Node, *, due: bool, busy: bool) -> status.Scene:
        """Of a taint that was recorded and is not there; one that is only not in view yet must not be forgotten."""
        live = await self._keeper.live(here.name)
        if (
            live is None
            or scene.record is None
            or fencing.act(live, scene.record, due=due, busy=busy) is not Act.FORGET
        ):
            return scene
        return replace(scene, record=node_patches.in_service_record(scene.record))

    # -- the dead return ----------------------------------------------------------------------------------------------

    async def _returned(self, drain: NodeDrain, here: Node) -> bool:
        """Whether the boot that was said to be dead is back; says so, and which pods run twice now."""
        record = drain.status.node
        if here.ready != ALIVE:
            return False
        same = record is not None and record.boot_id == here.boot_id
        if not same:
            self._taken.clear()
        returned = fencing.returned(here, record)
        if returned or self._taken:
            self._announcer.returned_without_reboot(drain, here)
            try:
                await self._look_for_twins(drain, here)
            except TRANSIENT as error:
                log.warning("node.twins_unknown", node=here.name, drain=drain.name, error=str(error))
        return returned

    async def _look_for_twins(self, drain: NodeDrain, here: Node) -> None:
        now = self._clock.monotonic()
        if now - self._looked_for_twins < _EVERY:
            return
        self._looked_for_twins = now
        for pod in list(self._taken.values())[:_MOST_TWINS]:
            found: list[Pod] = []
            async for page in self._client.list(
                paths.namespaced("v1", pod.namespace, "pods"), **duplicate_pods.where(pod)
            ):
                found += readable(page["items"], pods.pod)
            if twin := duplicate_pods.twin(pod, found):
                del self._taken[pod.uid]
                self._announcer.running_twice(drain, here, pod, twin)


def _identity(node: Node) -> tuple[str, str, str]:
    return node.uid, node.boot_id, node.ready
