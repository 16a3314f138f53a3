"""Follow drains to their end, and warn if no operator works on them.

The drains do not depend on the plugin. While the API server does not answer, the plugin retries.
"""

import time
from collections.abc import Iterable, Mapping
from enum import StrEnum

from rescheduler.api import API_VERSION
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ApiUnavailableError, ClusterApi
from rescheduler.cli.progress import is_drained, is_unobserved
from rescheduler.cli.screens import Screen
from rescheduler.core.model.raw import RawObject

_WATCH_SECONDS = 10  # seconds of one watch; the leader renews its Lease every 2 s
_RETRY_DELAY = 2.0  # seconds, while the API server does not answer


class Outcome(StrEnum):
    """Outcome of following a drain."""

    DRAINED = "Drained"
    WITHDRAWN = "Withdrawn"
    TIMED_OUT = "TimedOut"


def follow(
    server: ClusterApi, drains: Iterable[RawObject], screen: Screen, timeout: float | None = None
) -> dict[str, Outcome]:
    """Follow drains until each has ended. Return the outcome by node. `timeout`: in seconds; None: no limit."""
    follower = _Follower(server, drains, screen)
    deadline = None if timeout is None else time.monotonic() + timeout
    while follower.open:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        try:
            follower.watch_once(_WATCH_SECONDS if left is None else min(_WATCH_SECONDS, left))
        except ApiUnavailableError as error:
            screen.warn(messages.connection_lost(", ".join(follower.open), error.message))
            time.sleep(_RETRY_DELAY)
    return follower.outcomes | dict.fromkeys(follower.open, Outcome.TIMED_OUT)


class _Follower:
    """Drains that are followed.

    Attributes:
        open: UIDs of the NodeDrains whose end is not seen yet, by node.
        outcomes: how the others ended, by node.
    """

    def __init__(self, server: ClusterApi, drains: Iterable[RawObject], screen: Screen) -> None:
        self._server, self._screen = server, screen
        self._latest = {drain["metadata"]["name"]: drain for drain in drains}
        self.open = {name: drain["metadata"]["uid"] for name, drain in self._latest.items()}
        self.outcomes: dict[str, Outcome] = {}
        self._last_leases: object = None

    def watch_once(self, seconds: float) -> None:
        """Read the NodeDrains, then watch them for a while, or until each has ended."""
        found, version = self._read()
        changed = False
        for name in list(self.open):
            changed = self._take(name, found.get(name)) or changed
        started = time.monotonic()
        selected = {"fieldSelector": f"metadata.name={next(iter(self._latest))}"} if len(self._latest) == 1 else {}
        if not self.open:
            return
        for kind, drain in self._server.watch(
            API_VERSION, "nodedrains", seconds=max(1, round(seconds)), resourceVersion=version, **selected
        ):
            if kind not in ("ADDED", "MODIFIED"):
                break  # a NodeDrain is deleted, or the watch is too old: the next round reads them again
            changed = self._take(drain["metadata"]["name"], drain) or changed
            if not self.open:
                return
        if changed:
            return
        if time.monotonic() - started >= seconds / 2:
            self._check_operator()
        else:
            time.sleep(1)  # or else a server that ends watches at once causes a hot loop of requests

    def _read(self) -> tuple[Mapping[str, RawObject], str]:
        """Return the NodeDrains by name, and the version to watch from."""
        if len(self._latest) > 1:
            items, version = self._server.list_with_version(API_VERSION, "nodedrains")
            return {item["metadata"]["name"]: item for item in items}, version
        (name,) = self._latest
        if (drain := self._server.get(API_VERSION, f"nodedrains/{name}")) is None:
            return {}, ""
        return {name: drain}, drain["metadata"]["resourceVersion"]

    def _take(self, name: str, drain: RawObject | None) -> bool:
        """Show the latest state of a NodeDrain. Return whether it changed."""
        if name not in self.open:
            return False
        if drain is None or drain["metadata"]["uid"] != self.open[name]:
            del self.open[name]
            self.outcomes[name] = Outcome.WITHDRAWN
            self._screen.remove(name)
            return True
        before, self._latest[name] = self._latest[name], drain
        self._screen.show(drain)
        if is_drained(drain):
            del self.open[name]
            self.outcomes[name] = Outcome.DRAINED
        return bool(drain["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"])

    def _check_operator(self) -> None:
        """Warn if nobody renews the operator's Lease or, if Leases are forbidden, if a NodeDrain is unread."""
        query = {"fieldSelector": "metadata.name=rescheduler"}
        answer = self._server.send("get", "coordination.k8s.io/v1", "leases", params=query)
        unread = [name for name in self.open if is_unobserved(self._latest[name])]
        if answer.ok:
            leases = [lease.get("spec") or {} for lease in answer.json()["items"]]
            holders = [(spec["holderIdentity"], spec.get("renewTime")) for spec in leases if spec.get("holderIdentity")]
            last_holders, self._last_leases = self._last_leases, holders
            if not holders or holders == last_holders:
                self._screen.warn(messages.operator_not_running(", ".join(self.open)))
            else:
                self._screen.clear_warning()
        elif unread:
            self._screen.warn(messages.drain_unobserved(", ".join(unread), _WATCH_SECONDS))
