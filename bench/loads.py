"""Bare load: evictions at a fixed pace, for the physical limit of a machine and for other tools' settings."""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from harness import ControlPlane

TOO_MANY = 429


@dataclass(frozen=True)
class Pace:
    """The pace of evictions.

    Attributes:
        at_once: evictions in flight; `per_app`: in flight for the pods of one app, which share a budget.
        rate: evictions a second; 0 for no limit.
        first_wait, longest_wait: back-off of one pod after a refusal; seconds.
        spell, pause: send for `spell` seconds, then rest for `pause` seconds; 0 for no rest.
    """

    name: str
    at_once: int
    per_app: int
    rate: float = 0.0
    first_wait: float = 0.05
    longest_wait: float = 1.0
    spell: float = 0.0
    pause: float = 0.0


LIMITS = tuple(Pace(f"{n} at once, one a budget", n, 1) for n in (8, 16, 32))
KARPENTER = Pace("Karpenter's settings (100 at once, 100/s)", 100, 100, rate=100, first_wait=0.1, longest_wait=10)
CLUSTER_API = Pace("Cluster API's settings (one by one, 10 s of every 30)", 1, 1, spell=10, pause=20)


async def _send(plane: ControlPlane, pods: Sequence[dict[str, Any]], pace: Pace) -> None:
    clock = asyncio.get_running_loop().time
    began, slots = clock(), asyncio.Semaphore(pace.at_once)
    apps: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(pace.per_app))
    turn = iter(range(len(pods) * 1000))

    async def evict(session: aiohttp.ClientSession, pod: dict[str, Any]) -> None:
        meta, wait = pod["metadata"], pace.first_wait
        path = f"{plane.server}/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
        name = {"name": meta["name"], "namespace": meta["namespace"]}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name}
        while True:
            async with apps[meta["labels"]["app"]], slots:
                if pace.rate:
                    await asyncio.sleep(max(0.0, began + next(turn) / pace.rate - clock()))
                if pace.pause and (at := (clock() - began) % (pace.spell + pace.pause)) > pace.spell:
                    await asyncio.sleep(pace.spell + pace.pause - at)
                async with session.post(path, json=body) as answer:
                    if answer.status != TOO_MANY:
                        return
            await asyncio.sleep(wait)
            wait = min(wait * 2, pace.longest_wait)

    async with aiohttp.ClientSession(connector=trusted(plane)) as session:
        await asyncio.gather(*(evict(session, pod) for pod in pods))


def trusted(plane: ControlPlane) -> aiohttp.TCPConnector:
    """Return connections with the administrator's rights, without a limit on their number."""
    trust = ssl.create_default_context(cafile=plane.pki / "ca.crt")
    trust.load_cert_chain(plane.pki / "admin.crt", plane.pki / "admin.key")
    return aiohttp.TCPConnector(limit=0, ssl=trust)


def evict(plane: ControlPlane, pods: Sequence[dict[str, Any]], pace: Pace) -> None:
    """Evict all pods at this pace."""
    asyncio.run(_send(plane, pods, pace))
