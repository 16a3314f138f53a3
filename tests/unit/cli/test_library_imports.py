"""The operator imports no client that it does not use."""

import subprocess
import sys

_SCRIPT = """
import sys
from rescheduler.cli.library_imports import leave_out_unused_parts
leave_out_unused_parts()
import rescheduler.app
unused = {"requests", "oauthlib", "websocket", "pykube", "kubernetes.client", "kubernetes.dynamic"}
print(*sorted(name for name in unused if sys.modules.get(name)))
"""


def test_synchronous_clients_are_not_imported() -> None:
    found = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
