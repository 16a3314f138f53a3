"""A small cluster whose operators reach it through bad connections, and a record of every revision.

The invariants judge the record after each fault.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from harness import ControlPlane, workloads
from harness.min_ready import lowest_ready
from harness.observer import Observer
from harness.operators import NAMESPACE, Operator, install
from harness.proxy import Proxy
from harness.recorder import Recorder
from harness.waiting import until
from invariants.checker import Checker
from invariants.records import Answer, Call
from invariants.state import RecordedState

USER = f"system:serviceaccount:{NAMESPACE}:rescheduler"
SPACE = "faults"
LAG = 8.0
"""Seconds that a busy machine may be late, for the rules."""
MIN_READY = {"web": 5, "single": 1}
"""Apps, and the number of Ready pods that the budget of each needs."""
_SITE = {"site": SPACE}


@dataclass
class FaultLab:
    """The cluster. As a context manager, it ends its operators and its proxies.

    Attributes:
        late: seconds that the view of an operator may be late because of the fault, in addition to `LAG`.
        born: when each operator process was started, in seconds of the epoch.
    """

    plane: ControlPlane
    workdir: Path
    late: float = 0.0
    nodes: list[str] = field(default_factory=list)
    born: list[float] = field(default_factory=list)
    _operators: list[Operator] = field(default_factory=list)
    _proxies: list[Proxy] = field(default_factory=list)
    _judged: int = 0

    def __post_init__(self) -> None:
        self.identity, self.observer = install(self.plane), Observer(self.plane.kubeconfig)
        self.nodes = self.plane.add_nodes(3, prefix="f", labels=_SITE)
        self.recorder = Recorder(self.plane)
        quick = {"startupGrace": "0s", "recoverAfter": "2s", "maxUnhealthy": "100%"}
        drain = {"replacementTimeout": "20s"}
        self.plane.apply(workloads.namespace(SPACE), workloads.policy("default", failure=quick, drain=drain))
        self.deploy()

    def deploy(self) -> None:
        """Create the workloads; wait until their pods are Ready and their budgets have counted them."""
        here: dict[str, Any] = {"nodeSelector": _SITE}
        self.plane.apply(
            workloads.deployment("web", 6, SPACE, **here),
            workloads.budget("web", SPACE, maxUnavailable=1),
            workloads.deployment("single", 1, SPACE, **here),
            workloads.budget("single", SPACE, minAvailable=1),
            workloads.stateful_set("db", 2, SPACE, **here),
            workloads.daemon_set("log", SPACE, **here),
        )
        self.settle()

    def settle(self) -> None:
        """Wait until all pods are Ready and counted."""
        wanted = {"web": 6, "single": 1, "db": 2, "log": 3}
        until(
            lambda: {app: self.observer.ready(SPACE, app) for app in wanted} == wanted,
            lambda: str({app: self.observer.ready(SPACE, app) for app in wanted}),
        )
        until(lambda: self.observer.counted(SPACE), "the budgets to be observed")

    # -- operators ----------------------------------------------------------------------------------------------------

    def proxy(self, *, seed: int = 0) -> Proxy:
        """Return a new proxy to the API server."""
        self._proxies.append(Proxy(self.plane, seed=seed))
        return self._proxies[-1].__enter__()

    def operator(self, proxy: Proxy | None = None, *, name: str = "one", **options: Any) -> Operator:
        """Start an operator, behind the proxy if there is one, with a token of its own; wait until it is ready."""
        identity = self.plane.identity_kubeconfig(NAMESPACE, "rescheduler")
        kubeconfig = self.workdir / f"{name}.kubeconfig"
        if proxy:
            proxy.kubeconfig(identity, kubeconfig)
        else:
            kubeconfig.write_text(identity.read_text())
        log = options.pop("log", self.workdir / f"{name}.log")
        operator = Operator(kubeconfig, log, identity=name, **options)
        self._operators.append(operator)
        return self.start(operator)

    def start(self, operator: Operator, *, ready: bool = True) -> Operator:
        """Start an operator again; the rules know that it has no memory."""
        self.born.append(time.time())
        return operator.start(ready=ready)

    def leads(self, operator: Operator) -> None:
        """Wait until the operator leads."""
        until(lambda: '"leader.working"' in operator.log.read_text(), f"{operator.log.name} to lead")

    # -- drains -------------------------------------------------------------------------------------------------------

    def busiest(self) -> str:
        """Return the node with the most pods of Deployments."""
        pods = [pod for pod in self.observer.pods(SPACE) if pod["metadata"]["labels"]["app"] in MIN_READY]
        return str(Counter(pod["spec"].get("nodeName") for pod in pods).most_common(1)[0][0])

    def annotate(self, node: str, value: str | None = "fault") -> None:
        """Request maintenance of a node, or withdraw the request."""
        word = "rescheduler.dev/maintenance" + ("-" if value is None else f"={value}")
        self.plane.kubectl("annotate", "--overwrite", "node", node, word)

    def drain_status(self, node: str) -> str:
        return json.dumps((self.observer.drain(node) or {}).get("status"))[:2000]

    def drained(self, node: str, *, seconds: float = 120) -> None:
        until(lambda: self.observer.phase(node) == "Drained", lambda: self.drain_status(node), seconds=seconds)

    def restored(self, node: str, *, seconds: float = 120) -> None:
        """Withdraw the request; wait until the node is as it was."""
        self.annotate(node, None)
        until(lambda: self.observer.drain(node) is None, lambda: self.drain_status(node), seconds=seconds)
        until(lambda: "taints" not in self.observer.node(node)["spec"], f"{node} to have no taint")
        assert not self.observer.node(node)["spec"].get("unschedulable")
        assert not [pod for pod in self.observer.pods(SPACE) if workloads.is_released(pod)]

    def drain_during(
        self,
        fault: AbstractContextManager[object] | None = None,
        *,
        lasts: float = 0,
        seconds: float = 120,
        harms: Proxy | None = None,
    ) -> str:
        """Drain the busiest node and restore it; the fault begins just before the request and lasts this long.

        `harms`: a proxy, of which the fault harms a request before it ends. Return the node. No app has fewer Ready pods than its budget needs.
        """
        node = self.busiest()
        with lowest_ready(self.observer, SPACE, *MIN_READY, every=0.1) as lowest:
            with fault or nullcontext():
                self.annotate(node)
                before = harms.harmed if harms else 0
                time.sleep(lasts)
                until(lambda: harms is None or harms.harmed > before, "the fault to harm a request")
            self.drained(node, seconds=seconds)
            self.restored(node, seconds=seconds)
        assert {app: lowest[app] >= least for app, least in MIN_READY.items()} == dict.fromkeys(MIN_READY, True), lowest
        return node

    # -- judgement ----------------------------------------------------------------------------------------------------

    def violations(self) -> list[str]:
        """Return violations of the invariants since the last call; all so far are judged again, by the current lag."""
        time.sleep(1)  # the audit log and the watches are written a moment later
        checker = Checker(RecordedState(LAG + self.late), frozenset((USER,)))
        born, count, known = sorted(self.born), 0, 0
        for each in self.recorder.changes(USER):
            count += 1
            if isinstance(each, Call):
                checker.call(each)
            elif isinstance(each, Answer):
                checker.answer(each)
            else:
                while born and born[0] <= each.at:
                    checker.state.born = born.pop(0)
                checker.change(each)
            if count == self._judged:
                known = len(checker.broken)
        self._judged, self.late = count, 0.0
        return checker.broken[known:]

    @contextmanager
    def judged(self, operator: Operator | None = None) -> Iterator[None]:
        """Check at the end that no invariant broke, and that the operator is still the same process, with a clean log."""
        pid = operator.pid if operator else 0
        yield
        if operator:
            assert operator.running, operator.tail(30)
            assert operator.pid == pid
            assert "Traceback" not in operator.log.read_text(), operator.tail(30)
        assert self.violations() == []

    def end_operators(self) -> None:
        """Let the operators end; their Leases are free then."""
        for operator in self._operators:
            operator.kill()
        self._operators.clear()
        for proxy in self._proxies:
            proxy.__exit__(None, None, None)
        self._proxies.clear()
        self.plane.kubectl("delete", "lease", "rescheduler", "-n", NAMESPACE, "--ignore-not-found", check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_operators()
        self.recorder.stop()


@contextmanager
def fault_lab(folder: Path) -> Iterator[FaultLab]:
    """Yield a lab on a new control plane; `folder`: for logs and kubeconfigs of its operators."""
    with ControlPlane.start(audit=True, bodies_of=USER) as plane, FaultLab(plane, folder) as made:
        yield made
