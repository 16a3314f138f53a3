"""Measure a process over a span of time: memory, processor, connections, and its requests in the audit log."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.common import OPERATOR
from harness import ControlPlane
from harness.operators import Operator

_INTERVAL = 1.0  # seconds between two samples
_WATCH_OPENED, _ANSWERED = "ResponseStarted", "ResponseComplete"


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB, with the pages of libraries that it shares."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def connections(pid: int, port: int) -> int:
    """Return the number of open TCP connections of a process to a port."""
    ours = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            ours.add(target[8:-1])
    found = 0
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        found += words[3] == "01" and int(words[2].rsplit(":", 1)[1], 16) == port and words[9] in ours
    return found


@dataclass
class Span:
    """Use of a process over a span of time.

    Attributes:
        memory: resident MB at each sample.
        requests: number of requests by verb and resource; a watch counts when it is opened.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    memory: list[float] = field(default_factory=list)
    connections: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def writes(self) -> int:
        """Number of writes, except those of Leases."""
        return sum(
            count
            for name, count in self.requests.items()
            if name.split()[0] in ("create", "update", "patch", "delete") and not name.endswith((" leases", "reviews"))
        )

    def numbers(self) -> dict[str, Any]:
        """Return the numbers for the results."""
        return {
            "seconds": round(self.seconds, 1),
            "share of a core": round(self.cpu / self.seconds, 4),
            "cpu, s": round(self.cpu, 2),
            "memory, MB": round(self.memory[-1], 1),
            "highest memory, MB": round(max(self.memory), 1),
            "connections": self.connections,
            "requests": self.requests.total(),
            "writes but Leases": self.writes,
            "by request": dict(self.requests.most_common(12)),
        }


@contextmanager
def measured(plane: ControlPlane, operator: Operator) -> Iterator[Span]:
    """Measure the operator while the block runs."""
    if plane.audit_log is None:
        raise RuntimeError("the control plane keeps no audit log")
    span, pid, port = Span(), operator.pid, int(plane.server.rsplit(":", 1)[1])
    start, done = plane.audit_log.stat().st_size, threading.Event()

    def sample() -> None:
        while not done.is_set():
            span.memory.append(resident(pid))
            span.connections = max(span.connections, connections(pid, port))
            done.wait(_INTERVAL)

    began, before = time.monotonic(), cpu_seconds(pid)
    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield span
    finally:
        done.set()
        sampler.join()
        span.memory.append(resident(pid))
        span.seconds, span.cpu = time.monotonic() - began, cpu_seconds(pid) - before
        time.sleep(1.5)  # the audit log is written in batches
        span.requests = requests_since(plane.audit_log, start)


def requests_since(log: Path, offset: int) -> Counter[str]:
    """Count the operator's requests after an offset of the audit log, by verb and resource."""
    counted: Counter[str] = Counter()
    with log.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            event = json.loads(line)
            watch = event["verb"] == "watch"
            if event["user"]["username"] == OPERATOR and event["stage"] == (_WATCH_OPENED if watch else _ANSWERED):
                about = event.get("objectRef", {})
                resource = "/".join(filter(None, (about.get("resource"), about.get("subresource")))) or "-"
                counted[f"{event['verb']} {resource}"] += 1
    return counted
