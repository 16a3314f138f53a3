"""Read what the API server has stored: an answer of the API never says in which version an object is stored."""

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

from harness import processes
from harness.controlplane import ControlPlane
from rescheduler.api import GROUP

_URLS = "--listen-client-urls="


def stored_versions(plane: ControlPlane, resource: str) -> set[str]:
    """Return the versions in which the objects of a resource of Rescheduler are stored."""
    prefix = f"/registry/{GROUP}/{resource}/".encode()
    after = prefix[:-1] + bytes([prefix[-1] + 1])
    query = {"key": base64.b64encode(prefix).decode(), "range_end": base64.b64encode(after).decode()}
    request = urllib.request.Request(f"{_address(plane)}/v3/kv/range", json.dumps(query).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        rows: list[dict[str, Any]] = json.load(answer).get("kvs", [])
    return {json.loads(base64.b64decode(row["value"]))["apiVersion"].partition("/")[2] for row in rows}


def _address(plane: ControlPlane) -> str:
    (pid,) = [pid for pid in processes.of(plane.workdir) if processes.program(pid) == "etcd"]
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next(argument for argument in arguments if argument.startswith(_URLS)).removeprefix(_URLS)
