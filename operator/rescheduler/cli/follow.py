"""Follows a drain to its end: what changes is said, and what could make it wait for ever is said too.

The drain does not depend on who follows it: an API server that is away for a while ends nothing here.
"""

import shutil
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click

from rescheduler.api import API_VERSION
from rescheduler.cli.cluster_api import ApiUnavailableError, ClusterApi
from rescheduler.cli.output import printable
from rescheduler.cli.progress import DrainProgress, ProgressLine, is_drained, is_unobserved

_WATCH_SECONDS = 10  # seconds of one watch; a holder renews its Lease every 2 s
_RETRY_DELAY = 2.0  # seconds, where the API server does not answer
_SHOW_OPERATOR_PODS = "kubectl get pods -A -l app.kubernetes.io/name=rescheduler"


def follow(server: ClusterApi, drain: dict[str, Any]) -> bool:
    """Until the node is Drained, or (False) its drain is withdrawn before."""
    name, screen = drain["metadata"]["name"], Screen()
    follower = _Follower(server, drain, screen)
    while True:
        try:
            ended = follower.watch_once()
        except ApiUnavailableError as error:
            screen.warn(f"{name}: {error.message}; the drain goes on, and so does this")
            time.sleep(_RETRY_DELAY)
            continue
        if ended is not None:
            screen.finish()
            return ended


class _Follower:
    """What has been seen of one drain."""

    def __init__(self, server: ClusterApi, drain: dict[str, Any], screen: "Screen") -> None:
        self._server, self._screen, self._progress = server, screen, DrainProgress()
        self._name, self._uid = drain["metadata"]["name"], drain["metadata"]["uid"]
        self._leases_before: object = None

    def watch_once(self) -> bool | None:
        """Look, then watch for a while; whether it ended well, None: it goes on."""
        found = self._server.get(API_VERSION, f"nodedrains/{self._name}")
        if found is None or found["metadata"]["uid"] != self._uid:
            return False
        told = self._show_changes(found)
        if is_drained(found):
            return True
        begun = time.monotonic()
        selected = {"fieldSelector": f"metadata.name={self._name}"}
        version = found["metadata"]["resourceVersion"]
        for kind, drain in self._server.watch(
            API_VERSION, "nodedrains", seconds=_WATCH_SECONDS, resourceVersion=version, **selected
        ):
            if kind not in ("ADDED", "MODIFIED"):
                break  # deleted, or the watch is too old: looked at anew
            found = drain
            told = self._show_changes(found) or told
            if is_drained(found):
                return True
        if not told and time.monotonic() - begun >= _WATCH_SECONDS / 2:
            self._check_operator(found)
        elif not told:
            time.sleep(1)  # a server that ends streams at once must not be asked in a hot loop
        return None

    def _show_changes(self, drain: dict[str, Any]) -> bool:
        lines = self._progress.new_lines(drain, datetime.now(UTC))
        for line in lines:
            self._screen.show(self._name, line)
        return bool(lines)

    def _check_operator(self, drain: dict[str, Any]) -> None:
        """Nothing has changed for a round: is anybody at work?"""
        query = {"fieldSelector": "metadata.name=rescheduler"}
        answer = self._server.send("get", "coordination.k8s.io/v1", "leases", params=query)
        if answer.ok:
            leases = [lease.get("spec") or {} for lease in answer.json()["items"]]
            held = [(spec["holderIdentity"], spec.get("renewTime")) for spec in leases if spec.get("holderIdentity")]
            before, self._leases_before = self._leases_before, held
            if not held or held == before:
                self._screen.warn(
                    f"{self._name}: no operator is at work (nobody renews the Lease rescheduler): {_SHOW_OPERATOR_PODS}. "
                    "The drain goes on as soon as one is"
                )
            else:
                self._screen.clear_warning()
        elif is_unobserved(drain):
            self._screen.warn(
                f"{self._name}: nobody has looked at it for {_WATCH_SECONDS} s. Does the operator run? {_SHOW_OPERATOR_PODS}"
            )


class Screen:
    """Lines one after another, or, on a terminal, the newest of a stage in the place of those before."""

    def __init__(self) -> None:
        self._stage = ""  # of the line that is not ended yet
        self._last_warning = ""

    def show(self, name: str, line: ProgressLine) -> None:
        """Say it."""
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
        """Say on the other stream what keeps all from going on, once."""
        if text != self._last_warning:
            self.finish()
            self._last_warning = text
            click.echo(text, err=True)

    def clear_warning(self) -> None:
        """What was warned of is over."""
        self._last_warning = ""

    def finish(self) -> None:
        """End the line."""
        if self._stage:
            click.echo()
        self._stage = ""
