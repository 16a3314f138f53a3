"""Two small test programs, and images of them without a container engine or a registry."""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

APPS = Path(__file__).parent / "apps"
SERVER, PAUSE = "localhost/server:1", "localhost/pause:1"


def build(folder: Path) -> Path:
    """Build the programs `server` and `load`, and `images.tar`, in this folder; return the archive."""
    go = shutil.which("go") or "go"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run([go, "build", "-o", f"{folder}/", "./..."], cwd=APPS, env=environment, check=True)
    archive = folder / "images.tar"
    archive.write_bytes(_archive((folder / "server").read_bytes()))
    return archive


def _archive(program: bytes) -> bytes:
    """Return a docker archive of two images that share their only layer."""
    layer = _tar({"server": program})
    images = {SERVER: ["/server"], PAUSE: ["/server", "pause"]}
    files, manifest = {"layer.tar": layer}, []
    for name, entry in images.items():
        config = _config(entry, layer)
        file = f"{hashlib.sha256(config).hexdigest()}.json"
        files[file] = config
        manifest.append({"Config": file, "RepoTags": [name], "Layers": ["layer.tar"]})
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
