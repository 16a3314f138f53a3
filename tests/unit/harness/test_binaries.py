"""Each program is found, downloaded with its checksum, or built. A local server stands for the sources."""

import hashlib
import io
import platform
import shutil
import tarfile
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import binaries

_FAKE = b"#!/bin/sh\necho fake\n"


class Source:
    """The files of the server, by path. While `answer` is cleared, the server does not answer."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.asked: list[str] = []
        self.answer = threading.Event()
        self.answer.set()

    def put(self, program: str, data: bytes, *, checksum: str | None = "right") -> str:
        """Publish a release and return its path."""
        (found,) = [p for p in binaries.PROGRAMS if p.name == program]
        arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        path = "/" + found.url.format(v=binaries.versions()[found.module], arch=arch)
        self.files[path] = data
        if checksum:
            digest = hashlib.sha256(data).hexdigest() if checksum == "right" else checksum
            self.files[f"{path}.sha256"] = f"{digest}\n".encode()
        return path


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Source]:
    """Set up a local source for all programs, an empty cache, and no assets."""
    made = Source()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            made.answer.wait(10)
            body = made.files.get(self.path)
            self.send_response(made.statuses.get(self.path, 404 if body is None else 200))
            self.end_headers()
            if body is not None and self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            return  # some tests need a client that gives up

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name in binaries.SOURCES:
        monkeypatch.setenv(f"RESCHEDULER_SOURCE_{name.upper()}", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BINARIES", "auto")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    yield made
    made.answer.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the programs that the code under test would build."""
    names: list[str] = []

    def build(programs: Sequence[binaries.Program]) -> None:
        names.extend(program.name for program in programs)

    monkeypatch.setattr(binaries, "_build", build)
    return names


def tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo(f"release/{name}")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_FAKE)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", [program.name for program in binaries.PROGRAMS])
def test_each_program_is_downloaded_alone(source: Source, built: list[str], name: str) -> None:
    (program,) = [p for p in binaries.PROGRAMS if p.name == name]
    source.put(name, tar(name, _FAKE) if program.url.endswith(".tar.gz") else _FAKE)
    binaries.ensure([name])
    assert binaries.path(name).read_bytes() == _FAKE
    assert binaries.path(name).stat().st_mode & 0o111
    assert not built


def test_what_the_source_lacks_is_built_and_the_rest_downloaded(source: Source, built: list[str]) -> None:
    source.put("kubectl", _FAKE)
    binaries.ensure(["kubectl", "kwok"])
    assert binaries.find("kubectl")
    assert built == ["kwok"]


def test_only_what_the_assets_lack_is_downloaded(
    source: Source, built: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = executable(tmp_path / "assets" / "kwok")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(there.parent))
    source.put("kubectl", _FAKE)
    binaries.ensure(["kwok", "kubectl"])
    assert binaries.path("kwok") == there
    assert binaries.path("kubectl").parent == binaries.cache()
    assert not any("kwok" in path for path in source.asked)


def test_what_is_cached_is_not_asked_for(source: Source, built: list[str]) -> None:
    executable(binaries.cache() / "kwok")
    binaries.ensure(["kwok"])
    assert not source.asked
    assert not built


def test_an_older_kubernetes_has_servers_of_its_own_and_shares_all_other_programs(
    source: Source, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in binaries.PROGRAMS:
        executable(binaries.cache() / program.name)
    oldest, version = next(iter(binaries.kubernetes_versions().items()))
    monkeypatch.setenv("KUBERNETES_VERSION", oldest)
    assert binaries.find("kube-apiserver") is None
    binaries.ensure()
    assert built == ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    assert any(f"/{version}/" in path for path in source.asked)
    there = executable(binaries.cache(binaries.OLDER_SERVERS[oldest]) / "kube-apiserver")
    assert binaries.path("kube-apiserver") == there
    assert binaries.path("kubectl").parent == binaries.cache() != there.parent


def test_the_newest_kubernetes_is_the_default_and_an_unknown_one_is_refused(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = list(binaries.kubernetes_versions())[-1]
    assert newest not in binaries.OLDER_SERVERS
    there = executable(binaries.cache() / "kube-apiserver")
    for version in ("", newest):
        monkeypatch.setenv("KUBERNETES_VERSION", version)
        assert binaries.find("kube-apiserver") == there
    monkeypatch.setenv("KUBERNETES_VERSION", "1.2")
    with pytest.raises(binaries.MissingBinariesError, match=f"KUBERNETES_VERSION=1.2: .* {newest}"):
        binaries.find("kube-apiserver")


def test_a_bad_checksum_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.put("kubectl", _FAKE, checksum="0" * 64)
    monkeypatch.setenv("BINARIES", "download")
    with pytest.raises(binaries.MissingBinariesError, match="checksum"):
        binaries.ensure(["kubectl"])
    assert binaries.find("kubectl") is None


def test_a_bad_checksum_among_many_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source.put("etcd", tar("etcd", _FAKE), checksum=None)
    folder, file = path.rsplit("/", 1)
    good = hashlib.sha256(source.files[path]).hexdigest()
    source.files[f"{folder}/SHA256SUMS"] = f"{'0' * 64}  {file}\n{good}  other.tar.gz\n".encode()
    monkeypatch.setenv("BINARIES", "download")
    with pytest.raises(binaries.MissingBinariesError, match="checksum"):
        binaries.ensure(["etcd"])


def test_a_checksum_that_cannot_be_read_now_is_not_taken_for_none(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source.put("kubectl", _FAKE)
    source.statuses[f"{path}.sha256"] = 503
    monkeypatch.setenv("BINARIES", "download")
    with pytest.raises(binaries.MissingBinariesError, match="503"):
        binaries.ensure(["kubectl"])
    assert binaries.find("kubectl") is None


def test_a_source_without_checksums_is_accepted(source: Source, built: list[str]) -> None:
    source.put("kwok", _FAKE, checksum=None)
    binaries.ensure(["kwok"])
    assert binaries.find("kwok")


def test_a_source_without_answer_is_tried_once_and_programs_are_built(
    source: Source, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source.put("kubectl", _FAKE)
    source.answer.clear()
    monkeypatch.setattr(binaries, "_ANSWERS_WITHIN", 0.2)
    binaries.ensure(["kubectl", "kube-scheduler"])
    assert built == ["kube-scheduler", "kubectl"]
    assert len(source.asked) == 1


def test_build_asks_no_source(source: Source, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINARIES", "build")
    binaries.ensure(["kwok"])
    assert built == ["kwok"]
    assert not source.asked


def test_without_go_the_error_names_what_to_install(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINARIES", "build")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(binaries.MissingBinariesError, match="install Go") as caught:
        binaries.ensure(["kwok"])
    assert "\n" not in str(caught.value)


def test_an_unknown_way_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINARIES", "guess")
    with pytest.raises(binaries.MissingBinariesError, match="auto, download or build"):
        binaries.ensure(["kwok"])
