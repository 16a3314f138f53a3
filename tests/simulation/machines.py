"""The real state of machines, whatever the API shows, and their kubelets.

A machine that cannot be reached runs on: that makes failures hard. No API shows `running`. Only `running` tells whether
two copies of one pod ran at once.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from invariants.objects import annotations, claims, deleting, finished, is_ready, name, node_of, set_condition, uid
from invariants.records import Change
from rescheduler.core.model.raw import RawObject
from simulation.controllers import BROKEN
from simulation.server import Server

_MEANT = 86400  # seconds of grace; a longer period is garbage
RENEWAL = 10.0  # seconds between two renewals of a node's Lease


class Machine:
    """A machine and its kubelet.

    Attributes:
        on: whether it has power; without power nothing runs.
        cut: whether its kubelet hangs or cannot reach the API server; its containers run on.
        ill: whether its kubelet reports that the node is not Ready.
        slow: seconds that containers take to start, in addition to the usual time.
        running: by uid, the pods whose containers run.
        started: called with each pod before its containers start.
    """

    def __init__(
        self, server: Server, node: str, chance: random.Random, started: Callable[[str, RawObject], None]
    ) -> None:
        self.node, self._server, self._chance, self._started = node, server, chance, started
        self.on, self.cut, self.ill, self.slow = True, False, False, 0.0
        self.running: dict[str, RawObject] = {}
        self._boot, self._fresh = 1, True
        self._skew = timedelta(seconds=chance.choice((0, 0, -400, 7, 3000)))
        self._timers: dict[tuple[str, str], float] = {}
        self._renewed = float("-inf")
        # Kubelets renew in turn and not together: in an outage their Leases expire one after another.
        self._phase = 3.0 * sum(map(ord, node)) % RENEWAL
        self._wake = asyncio.Event()
        server.listeners.setdefault("pods", []).append(self._pod_changed)

    def _pod_changed(self, change: Change) -> None:
        raw = change.after or change.before
        if raw and node_of(raw) == self.node:
            self._wake.set()

    @property
    def boot(self) -> str:
        """Return the bootID that the kubelet reports."""
        return f"{self.node}-boot-{self._boot}"

    def power_off(self) -> None:
        """Power the machine off: everything on it ends at once."""
        self.on, self.running = False, {}
        self._timers.clear()

    def come_back(self, *, reboot: bool) -> None:
        """Power the machine on and reconnect it; after a reboot no earlier container runs."""
        if reboot or not self.on:
            self.power_off()
            self._boot += 1
        self.on, self.cut, self.ill, self._fresh = True, False, False, True
        self._wake.set()

    def fall_ill(self) -> None:
        """Let the kubelet report at once that the node is not Ready."""
        self.ill = True
        self._wake.set()

    async def run(self) -> None:
        """Run the loop of the kubelet."""
        while True:
            now = self._server.now().timestamp()
            soonest = min([*self._timers.values(), self._renewed + RENEWAL])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, soonest - now) if self.on else RENEWAL):
                    await self._wake.wait()
            self._wake.clear()
            if self.on and not self.cut and not self._server.away:
                self._sync(self._server.now().timestamp())
            else:
                await asyncio.sleep(1)

    def _sync(self, now: float) -> None:
        tick = now >= self._renewed + RENEWAL - 0.1 or self._fresh
        if tick:
            self._renewed, self._phase = now - self._phase, 0.0
            self._beat()
        bound = {uid(p): p for p in self._server.all("pods") if node_of(p) == self.node}
        for gone in self.running.keys() - bound.keys():
            del self.running[gone]
        self._timers = {key: at for key, at in self._timers.items() if key[0] in bound}
        for pod in bound.values():
            self._tend(pod, now, tick=tick)
        self._fresh = False

    def _beat(self) -> None:
        lease = self._server.find("leases", self.node, "kube-node-lease")
        node = self._server.find("nodes", self.node)
        if lease is None or node is None:
            return
        renewal = (self._server.now() + self._skew).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._server.edit("leases", lease, lambda raw: raw["spec"].update(renewTime=renewal), user="kubelet")
        self._server.edit("nodes", node, self._report, user="kubelet")

    def _report(self, raw: dict[str, Any]) -> None:
        raw["status"]["nodeInfo"] = {"bootID": self.boot}
        status, reason = ("False", "KubeletNotReady") if self.ill else ("True", "KubeletReady")
        set_condition(raw, "Ready", status, reason, self._server.now())

    def _tend(self, pod: RawObject, now: float, *, tick: bool) -> None:
        runs, well = uid(pod) in self.running, BROKEN not in annotations(pod)
        if deleting(pod):
            grace = pod["metadata"]["deletionGracePeriodSeconds"]
            grace = grace if grace <= _MEANT else 60  # containers end at SIGTERM
            if not runs or self._due(pod, "end", now, self._chance.uniform(0.2, 1) * grace):
                self.running.pop(uid(pod), None)
                self._server.remove("pods", pod, grace=0, user="kubelet")
        elif not finished(pod) and not runs:
            if is_ready(pod):
                self._server.edit("pods", pod, lambda raw: self._set_ready(raw, ready=False), user="kubelet")
            if self._attached(pod) and self._due(pod, "start", now, self.slow + self._chance.choice((0.5, 1.5, 4.0))):
                self._started(self.node, pod)
                self.running[uid(pod)] = pod
                self._server.edit("pods", pod, lambda raw: self._set_ready(raw, ready=well), user="kubelet")
        elif runs and tick and well and not is_ready(pod):
            self._server.edit("pods", pod, lambda raw: self._set_ready(raw, ready=True), user="kubelet")

    def _due(self, pod: RawObject, what: str, now: float, after: float) -> bool:
        at = self._timers.setdefault((uid(pod), what), now + after)
        if now >= at:
            del self._timers[uid(pod), what]
        return now >= at

    def _set_ready(self, raw: dict[str, Any], *, ready: bool) -> None:
        raw["status"]["phase"] = "Running"
        set_condition(raw, "Ready", "True" if ready else "False", "", self._server.now())

    def _attached(self, pod: RawObject) -> bool:
        here = {
            a["spec"]["source"]["persistentVolumeName"]
            for a in self._server.all("volumeattachments")
            if a["spec"]["nodeName"] == self.node
        }
        return all(f"pv-{claim}" in here for claim in claims(pod))


def duplicates(pod: RawObject, node: str, machines: Iterable[Machine]) -> str:
    """Return the pod that runs elsewhere and must not run twice; empty if there is none."""
    for machine in machines:
        for other in machine.running.values():
            if machine.node == node:
                continue
            if (name(other), other["metadata"]["namespace"]) == (name(pod), pod["metadata"]["namespace"]):
                return f"{name(pod)} starts on {node} while it runs on {machine.node}"
            if shared := set(claims(other)) & set(claims(pod)):
                return f"{name(pod)} on {node} mounts {', '.join(shared)} while {name(other)} on {machine.node} does"
    return ""
