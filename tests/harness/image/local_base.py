"""Make both bases of the image from Debian's packages, where no registry can be reached.

The certificates that this machine trusts are trusted while packages are installed. They are not in the image.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.image import engines

BASE, BUILD_BASE = "localhost/rescheduler-base", "localhost/rescheduler-build-base"
_FILE = Path(__file__).with_name("local-base.Dockerfile")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def make(engine: str) -> None:
    """Make both bases with mmdebstrap. Raises CalledProcessError, or FileNotFoundError without mmdebstrap.

    Without a mirror, mmdebstrap takes Debian's own, with the updates and the security updates of the suite.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        command = ["mmdebstrap", "--variant=essential", "--include=ca-certificates,python3-pip", "trixie"]
        subprocess.run([*command, str(context / "debian.tar")], check=True)
        shutil.copy(_CERTIFICATES, context)
        for image, target in ((BUILD_BASE, "build"), (BASE, "base")):
            engines.build(engine, image, context, f"--file={_FILE}", f"--target={target}", arguments={})
