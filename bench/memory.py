"""Measure the memory of an idle operator, and of each import."""

import json
import subprocess
import sys

_IMPORTS = ("aiohttp", "kopf", "kubernetes.aio.config", "structlog", "prometheus_client", "rescheduler.app")
_SCRIPT = """
import importlib, json, os, sys
size = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6
before, costs = size(), {'python': size()}
for name in sys.argv[1:]:
    importlib.import_module(name)
    costs[name], before = size() - before, size()
print(json.dumps(costs))
"""


def imports() -> dict[str, float]:
    """Return MB of resident memory that each import adds, in order."""
    command = [sys.executable, "-c", _SCRIPT, *_IMPORTS]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(result.stdout))
