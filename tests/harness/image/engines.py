"""Container engines: docker, podman and buildah, whichever works here."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ENGINES = {
    "docker": ("docker", "version", "--format", "{{.Server.Version}}"),
    "podman": ("podman", "info"),
    "buildah": ("buildah", "info"),
}
"""Engines in the order of preference, and a command that fails if the engine cannot build."""


class NoEngineError(Exception):
    """No container engine works; the message says what to install."""


def working_engine() -> str:
    """Return the first engine that can build. A client without its service cannot. Raises NoEngineError."""
    for engine, probe in ENGINES.items():
        try:
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return engine
        except OSError:
            continue
    raise NoEngineError(f"no container engine works here: install {', '.join(ENGINES)}, or start its service")


def build(engine: str, image: str, context: Path, *options: str, arguments: Mapping[str, str]) -> None:
    """Build an image from a folder. Raises CalledProcessError after the engine printed the cause."""
    pairs = (part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}"))
    _run([engine, "build", *pairs, *options, "--tag", image, str(context)])


def save(engine: str, image: str, archive: Path) -> None:
    """Write an image as an archive that docker, podman and containerd load."""
    archive.unlink(missing_ok=True)  # buildah adds to an archive that is there
    if engine == "buildah":
        _run([engine, "push", "--quiet", image, f"docker-archive:{archive}:{image}"])
    else:
        _run([engine, "save", "--output", str(archive), image])


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)
