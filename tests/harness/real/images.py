"""Images of test programs and of CoreDNS, without a container engine or a registry; and the image of the operator."""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from harness import binaries

APPS = Path(__file__).parent / "apps"
SERVER, WRITER, PAUSE, COREDNS = "localhost/server:1", "localhost/writer:1", "localhost/pause:1", "localhost/coredns:1"
ARCHIVE = "IMAGE_ARCHIVE"
"""Environment variable: the archive with the image of the operator, as `make image-archive` writes it."""


def build(folder: Path) -> Path:
    """Build the programs `server`, `writer` and `load`, and `images.tar`, in this folder; return the archive."""
    go = shutil.which("go") or "go"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run([go, "build", "-o", f"{folder}/", "./..."], cwd=APPS, env=environment, check=True)
    archive = folder / "images.tar"
    images = {
        SERVER: (folder / "server", []),
        PAUSE: (folder / "server", ["pause"]),
        WRITER: (folder / "writer", []),
        COREDNS: (binaries.path("coredns"), []),
    }
    archive.write_bytes(_archive(images))
    return archive


def operator_archive() -> Path | None:
    """Return the archive with the image of the operator; None if there is none."""
    archive = Path(os.environ.get(ARCHIVE) or "/nowhere")
    return archive if archive.is_file() else None


def operator_image() -> str:
    """Return the name of the image in the operator's archive."""
    with tarfile.open(os.environ[ARCHIVE]) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest, "the archive is not a docker archive"
        (image,) = json.load(manifest)
    return str(image["RepoTags"][0])


def _archive(images: Mapping[str, tuple[Path, list[str]]]) -> bytes:
    """Return a docker archive of images with one program each, as name: (program, arguments)."""
    files: dict[str, bytes] = {}
    manifest = []
    for name, (program, arguments) in images.items():
        layer = _tar({program.name: program.read_bytes()})
        config = _config([f"/{program.name}", *arguments], layer)
        file = f"{hashlib.sha256(config).hexdigest()}.json"
        files |= {f"{program.name}.tar": layer, file: config}
        manifest.append({"Config": file, "RepoTags": [name], "Layers": [f"{program.name}.tar"]})
    return _tar({**files, "manifest.json": json.dumps(manifest).encode()})


def _config(entry: list[str], layer: bytes) -> bytes:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    body = {
        "architecture": machine,
        "os": "linux",
        "config": {"Entrypoint": entry, "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "test"}],
    }
    return json.dumps(body).encode()


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
