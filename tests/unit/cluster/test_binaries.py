"""Programs found, downloaded and refused, each alone, against a local server."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster import binaries


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served as every source; nothing is in the cache or the assets."""
    folder = tmp_path / "source"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("BINARIES", "download")
    for name in binaries.SOURCES:
        monkeypatch.setenv(f"RESCHEDULER_SOURCE_{name.upper()}", f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def publish(source: Path, name: str, data: bytes, *, checksum: str | None = None) -> None:
    program = next(p for p in binaries.PROGRAMS if p.name == name)
    path = source / program.url.format(v=binaries.versions()[program.module], arch="amd64")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    Path(f"{path}.sha256").write_text(checksum or hashlib.sha256(data).hexdigest())


def test_a_missing_program_is_downloaded_alone(source: Path) -> None:
    publish(source, "kubectl", b"#!/bin/sh\n")
    binaries.ensure(["kubectl"])
    assert binaries.path("kubectl").read_bytes() == b"#!/bin/sh\n"
    assert binaries.find("etcd") is None


def test_an_archive_is_unpacked(source: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("etcd-x/etcd")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    publish(source, "etcd", buffer.getvalue())
    binaries.ensure(["etcd"])
    assert binaries.path("etcd").read_bytes() == b"abc"


def test_a_wrong_checksum_is_refused_and_nothing_is_installed(source: Path) -> None:
    publish(source, "kwok", b"x", checksum="0" * 64)
    with pytest.raises(binaries.MissingBinariesError, match="checksum"):
        binaries.ensure(["kwok"])
    assert binaries.find("kwok") is None


def test_what_is_not_served_is_named(source: Path) -> None:
    with pytest.raises(binaries.MissingBinariesError, match="helm cannot be downloaded"):
        binaries.ensure(["helm"])


def test_assets_come_before_the_cache(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "kubectl").write_bytes(b"mine")
    (assets / "kubectl").chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    binaries.ensure(["kubectl"])
    assert binaries.path("kubectl").read_bytes() == b"mine"


def test_without_go_the_way_out_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINARIES", "auto")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(binaries.MissingBinariesError, match="install Go"):
        binaries.ensure(["kwok"])


def test_a_wrong_choice_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINARIES", "maybe")
    with pytest.raises(binaries.MissingBinariesError, match="auto, download or build"):
        binaries.ensure(["kwok"])
