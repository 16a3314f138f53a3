"""Released pods that no drain and no shift looks after: given back, or let go as their ReplicaSets would have.

Found by one list by label at start and at every re-sync: a NodeDrain may have been removed by force, or by an older
version, in the middle of a move.
"""

import asyncio
import math
from collections.abc import Callable, Collection

from rescheduler.api import names
from rescheduler.api.policies import Drain
from rescheduler.core import pods
from rescheduler.core.pods import Pod
from rescheduler.core.replacements import Choice, Way
from rescheduler.core.verdicts import Fate, Verdict
from rescheduler.engine.evictions import Sender
from rescheduler.engine.node_pods import Movers
from rescheduler.engine.tasks import Supervisor
from rescheduler.kube import paths

HOLDER = "strays/"
"""As a holder of mirrors; no node has a name like this."""
_RATE = 20
_AGAIN = 5.0  # seconds, while there are some
_SELECTOR = f"{names.HASH}={names.RELEASED}"


class Strays:
    """Looks after them while this process leads; `held`: nodes whose pods somebody else looks after."""

    def __init__(self, movers: Movers, held: Callable[[], Collection[str]], supervisor: Supervisor) -> None:
        self._t, self._held, self._supervisor = movers, held, supervisor
        self._wake = asyncio.Event()
        self._sender = Sender(self.wake)
        self._known: dict[str, Pod] = {}  # by uid: those given back carry the label no more
        self.none_left = asyncio.Event()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    async def run(self) -> None:
        """Look whenever woken, and while there are some."""
        try:
            await self._supervisor.loop("strays", self._step, wake=self._wake, retry=(_AGAIN, _AGAIN))
        finally:
            self._t.budgets.hold(HOLDER, ())
            self._t.replacements.close(HOLDER)

    async def _step(self) -> float:
        return _AGAIN if await self._look() else math.inf

    async def _look(self) -> bool:
        """Whether any are left."""
        found = await self._find()
        self._t.budgets.hold(HOLDER, {pod.namespace for pod in found})
        rows = [(pod, Verdict(Fate.EVICT)) for pod in found]
        now, settings = self._t.clock.now(), Drain()
        back = self._t.replacements.look(HOLDER, rows, settings, now, may_move=False, said={}) or {}
        sent = []
        for pod, verdict in rows:
            choice = back.get(pod.uid, Choice(Way.WAIT))
            self._t.replacements.act(HOLDER, pod, choice)
            if choice.way in (Way.DELETE, Way.EVICT):
                sent.append((pod, Verdict(Fate.DELETE) if choice.way is Way.DELETE else verdict))
        self._t.evictions.send(self._sender, sent, policy=HOLDER, rate=_RATE)
        if found:
            self.none_left.clear()
        else:
            self.none_left.set()
        return bool(found)

    async def _find(self) -> list[Pod]:
        rows: list[Pod] = []
        async for page in self._t.client.list(paths.PODS, labelSelector=_SELECTOR):
            rows += [pods.pod(raw) for raw in page["items"]]
        held = self._held()
        back = [self._t.replacements.latest(pod) for pod in self._known.values()]
        found = {pod.uid: pod for pod in [*back, *rows] if pod.node not in held and not pod.deleting and pod.move}
        self._known = found
        return list(found.values())
