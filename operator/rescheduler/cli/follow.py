"""Follow a drain to its end: print each change, and warn if no operator works on the drain.

The drain does not depend on the plugin. While the API server does not answer, the plugin retries.
"""

import shutil
import sys
import time
from datetime import UTC, datetime

import click

from rescheduler.api import API_VERSION
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ApiUnavailableError, ClusterApi
from rescheduler.cli.output import printable
from rescheduler.cli.progress import DrainProgress, ProgressLine, is_drained, is_unobserved
from rescheduler.core.model.raw import RawObject

_WATCH_SECONDS = 10  # seconds of one watch; the leader renews its Lease every 2 s
_RETRY_DELAY = 2.0  # seconds, while the API server does not answer


def follow(server: ClusterApi, drain: RawObject) -> bool:
    """Follow the drain until it ends. Return whether the node is Drained; False: the NodeDrain was deleted before."""
    name, screen = drain["metadata"]["name"], Screen()
    follower = _Follower(server, drain, screen)
    while True:
        try:
            drained = follower.watch_once()
        except ApiUnavailableError as error:
            screen.warn(messages.connection_lost(name, error.message))
            time.sleep(_RETRY_DELAY)
            continue
        if drained is not None:
            screen.finish()
            return drained


class _Follower:
    """A drain that is followed, with the state that was printed last."""

    def __init__(self, server: ClusterApi, drain: RawObject, screen: "Screen") -> None:
        self._server, self._screen, self._progress = server, screen, DrainProgress()
        self._name, self._uid = drain["metadata"]["name"], drain["metadata"]["uid"]
        self._last_leases: object = None

    def watch_once(self) -> bool | None:
        """Read the NodeDrain, then watch it for a while.

        Return whether the node is Drained; None: the drain continues.
        """
        latest = self._server.get(API_VERSION, f"nodedrains/{self._name}")
        if latest is None or latest["metadata"]["uid"] != self._uid:
            return False
        changed = self._show_changes(latest)
        if is_drained(latest):
            return True
        started = time.monotonic()
        selected = {"fieldSelector": f"metadata.name={self._name}"}
        version = latest["metadata"]["resourceVersion"]
        for kind, drain in self._server.watch(
            API_VERSION, "nodedrains", seconds=_WATCH_SECONDS, resourceVersion=version, **selected
        ):
            if kind not in ("ADDED", "MODIFIED"):
                break  # the NodeDrain is deleted, or the watch is too old: the next round reads it again
            latest = drain
            changed = self._show_changes(latest) or changed
            if is_drained(latest):
                return True
        if not changed and time.monotonic() - started >= _WATCH_SECONDS / 2:
            self._check_operator(latest)
        elif not changed:
            time.sleep(1)  # or else a server that ends watches at once causes a hot loop of requests
        return None

    def _show_changes(self, drain: RawObject) -> bool:
        lines = self._progress.new_lines(drain, datetime.now(UTC))
        for line in lines:
            self._screen.show(self._name, line)
        return bool(lines)

    def _check_operator(self, drain: RawObject) -> None:
        """Warn if nobody renews the operator's Lease or, if Leases are forbidden, if the NodeDrain is unread."""
        query = {"fieldSelector": "metadata.name=rescheduler"}
        answer = self._server.send("get", "coordination.k8s.io/v1", "leases", params=query)
        if answer.ok:
            leases = [lease.get("spec") or {} for lease in answer.json()["items"]]
            holders = [(spec["holderIdentity"], spec.get("renewTime")) for spec in leases if spec.get("holderIdentity")]
            last_holders, self._last_leases = self._last_leases, holders
            if not holders or holders == last_holders:
                self._screen.warn(messages.operator_not_running(self._name))
            else:
                self._screen.clear_warning()
        elif is_unobserved(drain):
            self._screen.warn(messages.drain_unobserved(self._name, _WATCH_SECONDS))


class Screen:
    """Prints progress lines. On a terminal, a line replaces the line before it of the same stage."""

    def __init__(self) -> None:
        self._stage = ""  # of the line that has no newline yet; empty for none
        self._last_warning = ""

    def show(self, name: str, line: ProgressLine) -> None:
        """Print a progress line on stdout."""
        self._last_warning = ""
        text = printable(f"{name}: {line.text}" if line.stage else line.text)
        if not sys.stdout.isatty():
            click.echo(text)
            return
        if self._stage and line.stage != self._stage:
            self.finish()
        width = shutil.get_terminal_size().columns
        click.echo(f"\r\x1b[2K{text[: width - 1]}" if line.stage else text, nl=not line.stage)
        self._stage = line.stage

    def warn(self, text: str) -> None:
        """Print a warning on stderr, once until another line is shown or `clear_warning` is called."""
        if text != self._last_warning:
            self.finish()
            self._last_warning = text
            click.echo(text, err=True)

    def clear_warning(self) -> None:
        """Forget the last warning, so that it is printed again if it recurs."""
        self._last_warning = ""

    def finish(self) -> None:
        """End the current line."""
        if self._stage:
            click.echo()
        self._stage = ""
