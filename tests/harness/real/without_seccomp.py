"""runc without its seccomp profile: built as Go alone builds it, runc has no seccomp, and a kubelet asks for it.

Put before runc as an executable of its own; takes the profile out of the bundle that is to be created.
"""

import json
import os
import sys
from pathlib import Path


def main(runc: str, arguments: list[str]) -> None:
    """Go on as runc."""
    if "--bundle" in arguments and "create" in arguments:
        config = Path(arguments[arguments.index("--bundle") + 1]) / "config.json"
        body = json.loads(config.read_text())
        if body.get("linux", {}).pop("seccomp", None):
            config.write_text(json.dumps(body))
    os.execv(runc, [runc, *arguments])


if __name__ == "__main__":
    main(os.environ["REAL_RUNC"], sys.argv[1:])
