"""Measure the cost of watching the Leases of many kubelets."""

import asyncio
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from bench.common import say
from bench.loads import trusted
from harness import ControlPlane
from harness.operators import Operator

COUNT, EVERY, SECONDS = 5000, 10.0, 40.0
_AT_ONCE = 32


def _cpu(pid: int) -> float:
    """Return the processor time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def _each(plane: ControlPlane, seconds: float, *, create: bool) -> float:
    """Create all Leases, or renew them in turn for these seconds at their pace; return renewals a second."""
    url = f"{plane.server}/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    slots, began, sent = asyncio.Semaphore(_AT_ONCE), time.monotonic(), 0
    headers = {"Content-Type": "application/json" if create else "application/merge-patch+json"}

    async def one(session: aiohttp.ClientSession, index: int) -> None:
        async with slots:
            name, spec = f"kubelet-{index}", {"holderIdentity": f"kubelet-{index}", "renewTime": _now()}
            meta = {"name": name, "namespace": "kube-node-lease"}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            method, where = ("POST", url) if create else ("PATCH", f"{url}/{name}")
            text = json.dumps(body if create else {"spec": spec})
            async with session.request(method, where, data=text, headers=headers) as answer:
                answer.raise_for_status()

    async with aiohttp.ClientSession(connector=trusted(plane)) as session:
        if create:
            await asyncio.gather(*(one(session, index) for index in range(COUNT)))
            return 0.0
        tasks = []
        while (gone := time.monotonic() - began) < seconds:
            due = int(gone * COUNT / EVERY)
            tasks += [asyncio.create_task(one(session, index % COUNT)) for index in range(sent, due)]
            sent = max(sent, due)
            await asyncio.sleep(0.02)
        await asyncio.gather(*tasks)
    return sent / (time.monotonic() - began)


def cost(plane: ControlPlane, operator: Operator) -> dict[str, Any]:
    """Return the operator's share of a core while 5,000 Leases are renewed every 10 s, and while none is."""
    say(f"creating {COUNT} leases")
    asyncio.run(_each(plane, 0, create=True))
    time.sleep(10)
    began, before = time.monotonic(), _cpu(operator.pid)
    time.sleep(SECONDS / 2)
    idle = (_cpu(operator.pid) - before) / (time.monotonic() - began)
    began, before = time.monotonic(), _cpu(operator.pid)
    rate = asyncio.run(_each(plane, SECONDS, create=False))
    busy = (_cpu(operator.pid) - before) / (time.monotonic() - began)
    say(f"{rate:.0f} renewals a second: {busy:.1%} of a core, {idle:.1%} without")
    return {"renewals a second": rate, "share of a core": busy, "share of a core, idle": idle}
