"""Build the plugin as one file for each platform, with its archive, and the krew manifest that names the archives.

    manifests/plugin.py DIST [PLATFORM ...]

The file runs with any CPython that it has the compiled parts for. It unpacks itself into the cache of the user when it
runs for the first time.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {
    "linux-amd64": "linux_x86_64",
    "linux-arm64": "linux_aarch64",
    "darwin-amd64": "macosx_11_0_x86_64",
    "darwin-arm64": "macosx_11_0_arm64",
}
"""Name in the krew manifest, and name of the wheels."""
NO_CHECKSUM = "0" * 64


def main() -> None:
    """Build the platforms of the command line, or that of this machine."""
    dist, *platforms = sys.argv[1:]
    folder = Path(dist)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = (ROOT / "manifests" / "krew" / "reschedule.yaml").read_text()
    for name in platforms or [this_platform()]:
        archive = pack(build(folder, name), name)
        checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
        manifest = with_checksum(manifest, archive.name, checksum)
    (folder / "reschedule.yaml").write_text(manifest)


def this_platform() -> str:
    """Return the name of the platform of this machine."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{platform.system().lower()}-{machine}"


def build(folder: Path, name: str) -> Path:
    """Build the program for a platform."""
    program = folder / name / "kubectl-reschedule"
    program.parent.mkdir(exist_ok=True)
    wheels = [f"{PLATFORMS[name]}-cp-{version}.0-cp{version.replace('.', '')}" for version in PYTHONS]
    with tempfile.TemporaryDirectory() as sources:
        pip = ["pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
        _python(*pip, "--target", sources, str(ROOT))
        shutil.rmtree(Path(sources) / "bin")
        pex = ["pex", "--venv", "--sh-boot", "-D", sources, "-m", "rescheduler.cli.plugin", "-o", str(program)]
        pex += ["-r", str(ROOT / "requirements" / "plugin.txt")]
        _python(*pex, *(f"--platform={wheel}" for wheel in wheels))
    return program


def pack(program: Path, name: str) -> Path:
    """Return an archive with the program and its license, as krew expects it."""
    archive = program.parent.parent / f"kubectl-reschedule-{name}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(program, program.name)
        tar.add(ROOT / "LICENSE", "LICENSE")
    return archive


def with_checksum(manifest: str, archive: str, checksum: str) -> str:
    """Return the krew manifest with the checksum of an archive."""
    before, uri, after = manifest.partition(f"/{archive}\n")
    return before + uri + after.replace(NO_CHECKSUM, checksum, 1)


def _python(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)  # noqa: S603 - the command is built above


if __name__ == "__main__":
    main()
