"""A FlexVolume driver: mounts a folder of the host, so that a volume can follow its pod to every node.

The kubelet executes it. The option `folder` of the volume is the folder of the host.
"""

import json
import subprocess
import sys
from pathlib import Path


def main(action: str, *arguments: str) -> dict[str, object]:
    """Carry out a request of the kubelet; return the answer."""
    if action == "init":
        return {"status": "Success", "capabilities": {"attach": False, "fsGroup": False, "selinuxRelabel": False}}
    if action == "mount":
        Path(arguments[0]).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-n", "--bind", json.loads(arguments[1])["folder"], arguments[0]], check=True)
    elif action == "unmount":
        subprocess.run(["umount", "-n", arguments[0]], check=True)
    else:
        return {"status": "Not supported"}
    return {"status": "Success"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))
