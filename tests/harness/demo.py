"""`make demo`: a throwaway control plane, the operator, one drained node and one failed node.

Ends by itself with 0. A failed step is named, with the last log lines of the operator.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness import ControlPlane, binaries, workloads
from harness.clients import ControlPlaneError
from harness.observer import Observer
from harness.operators import Operator, install

_SPACE = "shop"
_POLICY = workloads.policy(
    "demo",
    maintenance={"maxUnavailable": "50%"},
    failure={
        "conditions": [{"type": "Ready", "status": ["Unknown"], "for": "3s"}],
        "recoverAfter": "3s",
        "startupGrace": "0s",
        "maxUnhealthy": "50%",
    },
)


class Screen:
    """The output of the demo: a live table in a terminal, else a line for each change."""

    def __init__(self, observer: Observer, nodes: list[str]) -> None:
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self._observer, self._nodes = observer, nodes
        self._live = Live(console=self.console, refresh_per_second=8) if self.console.is_terminal else None
        self._title, self._last = "", ""

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, title: str) -> None:
        """Print the step that begins."""
        self._title = title
        if self._live is None:
            self.console.print(f"== {title}")

    def look(self) -> None:
        """Show the cluster in its current state."""
        rows = [self._row(name) for name in self._nodes]
        if self._live:
            table = Table("node", "state", "pods", "drain", "moved", "blocked", box=None)
            for row in rows:
                table.add_row(*row)
            self._live.update(Group(Text(f"\n{self._title}\n", style="bold"), table))
        else:
            text = "   ".join(f"{r[0]}[{r[1]}{' ' + r[3] if r[3] else ''}] {_pod_count(r[2].count('■'))}" for r in rows)
            if text != self._last:
                self._last = text
                self.console.print(text)

    def _row(self, name: str) -> tuple[str, str, str, str, str, str]:
        node, drain = self._observer.node(name), self._observer.drain(name) or {}
        ready = next((c["status"] for c in node["status"].get("conditions", []) if c["type"] == "Ready"), "?")
        state = "ready" if ready == "True" else "DEAD"
        state += ", cordoned" if node["spec"].get("unschedulable") else ""
        pods = self._observer.pods(_SPACE, node=name)
        going = sum("deletionTimestamp" in pod["metadata"] for pod in pods)
        marks = "■" * (len(pods) - going) + "□" * going
        status = drain.get("status", {})
        blocked = status.get("blockersTotal") or 0
        return name, state, marks, status.get("phase", ""), status.get("progress", ""), str(blocked or "")

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Show the cluster until the condition is true. Raises TimeoutError with the name of the condition."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}")
            self.look()
            time.sleep(0.15)
        self.look()


def _pod_count(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def run_scenario(plane: ControlPlane, screen: Screen, observer: Observer, nodes: list[str]) -> None:
    """Drain one node, fail another, restore both."""
    due, doomed = nodes[0], nodes[1]
    screen.say(f'1. kubectl annotate node {due} rescheduler.dev/maintenance="swap disk"')
    plane.kubectl("annotate", "node", due, "rescheduler.dev/maintenance=swap disk")
    screen.until(lambda: observer.phase(due) == "Drained", f"{due} to be drained")
    screen.say(f"2. {doomed} fails: its kubelet is killed, and the node controller notices")
    plane.fail_node(doomed)
    screen.until(lambda: observer.drain(doomed), f"the drain of {doomed} to be created")
    screen.say(f"3. {doomed} is drained as failed: pods that may run twice are replaced, the others wait for proof")

    def replaced() -> bool:
        return observer.ready(_SPACE, "web") >= 12 and observer.ready(_SPACE, "api") >= 6

    screen.until(replaced, "all replacements to be Ready")
    screen.say(f"4. {doomed} comes back after a reboot, and the work on {due} is done: both nodes are restored")
    plane.recover_node(doomed)
    plane.kubectl("annotate", "node", due, "rescheduler.dev/maintenance-")
    screen.until(lambda: not observer.drain(due) and not observer.drain(doomed), "both nodes to be restored")
    screen.say("5. Done: both nodes are restored, and every pod runs")
    screen.until(replaced, "all pods to be Ready")


def fill(plane: ControlPlane) -> None:
    """Deploy a few applications with budgets."""
    plane.apply(workloads.namespace(_SPACE))
    plane.apply(
        workloads.deployment("web", 12, _SPACE, annotations={"cluster/ready-after": "1s"}),
        workloads.deployment("api", 6, _SPACE),
        workloads.stateful_set("db", 3, _SPACE),
        workloads.budget("web", _SPACE, maxUnavailable=2),
        workloads.budget("api", _SPACE, minAvailable="50%"),
        workloads.budget("db", _SPACE, maxUnavailable=1),
        _POLICY,
    )
    for kind in ("deploy/web", "deploy/api", "sts/db"):
        plane.kubectl("rollout", "status", kind, "-n", _SPACE, "--timeout=60s")


def play(*, keep: bool) -> int:
    """Run the demo; return its exit code."""
    step, log = "installing the control plane's programs", Path()
    plane: ControlPlane | None = None
    try:
        binaries.ensure()
        step = "starting a control plane"
        click.echo(f"{step} …")
        plane = ControlPlane.start()
        nodes = plane.add_nodes(6, prefix="node-", zones=("a", "b", "c"), own_kwok=True)
        step = "installing CRDs, RBAC, a policy and some workloads"
        click.echo(f"{step} …")
        identity, log = install(plane), plane.workdir / "operator.log"
        fill(plane)
        step = "starting the operator"
        click.echo(f"{step} …")
        operator = Operator(identity, log).start()
        observer = Observer(plane.kubeconfig)
        try:
            with Screen(observer, nodes) as screen:
                step = "draining and failing nodes"
                run_scenario(plane, screen, observer, nodes)
            if keep:
                click.echo(
                    f"\nThe control plane runs until Ctrl-C:\n  export KUBECONFIG={plane.kubeconfig} PATH={binaries.path('kubectl').parent}:$PATH"
                )
                while operator.running:
                    time.sleep(1)
        finally:
            operator.stop()
    except KeyboardInterrupt:
        return 0 if keep else 130
    except (ControlPlaneError, TimeoutError, binaries.MissingBinariesError) as error:
        click.echo(f"demo: failed at: {step}: {error}", err=True)
        if log.is_file():
            lines = log.read_text().splitlines()[-15:]
            click.echo("the operator's last lines:\n  " + "\n  ".join(lines), err=True)
        return 1
    finally:
        if plane:
            plane.stop()
    return 0


@click.command()
@click.option("--keep", is_flag=True, help="Keep the control plane running until Ctrl-C.")
def main(keep: bool) -> None:
    """Drain a node and fail a node on a throwaway control plane."""
    sys.exit(play(keep=keep))


if __name__ == "__main__":
    main()
