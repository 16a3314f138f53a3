"""The programs of the control plane: find, download or build each of them.

The order is KUBEBUILDER_ASSETS, the user's cache, and then the environment variable BINARIES. `download` takes official
releases. `build` builds the programs as Go tools of the modules in this folder. `auto` downloads if the source answers
within seconds, and builds otherwise. The programs of real nodes are installed only for callers that name them.

KUBERNETES_VERSION selects an older version of the API server, the controllers and the scheduler, such as 1.33.
"""

import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.waiting import repeated

MODULE = Path(__file__).parent / "binaries"
NODE_MODULE = Path(__file__).parent / "real" / "binaries"
COREDNS_MODULE = Path(__file__).parent / "real" / "coredns"
PROMTOOL_MODULE = Path(__file__).parent / "promtool"
KUBERNETES_MODULES = Path(__file__).parent / "kubernetes"
SYFT_MODULE = Path(__file__).parent / "syft"
PEER_MODULE = Path(__file__).parents[2] / "bench" / "binaries"
_ANSWERS_WITHIN = 5.0  # seconds
_CPU_MINUTES = 12


class MissingBinariesError(Exception):
    """A program is missing and cannot be installed; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program: its Go package, and the address of its release.

    Attributes:
        module: the Go module whose version in go.mod counts.
        url: path below the base of the source; `{v}` is the version, `{number}` the version without its v, `{arch}` the
            architecture of the machine. An archive is unpacked. Empty: the only release is an image, so the program is
            always built.
        tools: folder of the go.mod that has the program as a tool.
        cgo: whether a part of it is C.
    """

    name: str
    package: str
    module: str
    source: str
    url: str
    tools: Path = MODULE
    cgo: bool = False


SOURCES = {
    "kubernetes": "https://dl.k8s.io/release",
    "etcd": "https://github.com/etcd-io/etcd/releases/download",
    "kwok": "https://github.com/kubernetes-sigs/kwok/releases/download",
    "helm": "https://get.helm.sh",
    "containerd": "https://github.com/containerd/containerd/releases/download",
    "runc": "https://github.com/opencontainers/runc/releases/download",
    "cni": "https://github.com/containernetworking/plugins/releases/download",
    "syft": "https://github.com/anchore/syft/releases/download",
    "coredns": "https://github.com/coredns/coredns/releases/download",
}
"""Base addresses; the environment variable RESCHEDULER_SOURCE_<NAME> overrides one."""

_K8S = "k8s.io/kubernetes"
_KWOK = "sigs.k8s.io/kwok"
_SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


def _kubernetes(name: str, tools: Path = MODULE) -> Program:
    return Program(name, f"{_K8S}/cmd/{name}", _K8S, "kubernetes", f"{{v}}/bin/linux/{{arch}}/{name}", tools)


PROGRAMS = (
    *map(_kubernetes, (*_SERVERS, "kubectl")),
    *(
        Program(name, f"{_KWOK}/cmd/{name}", _KWOK, "kwok", f"{{v}}/{name}-linux-{{arch}}")
        for name in ("kwok", "kwokctl")
    ),
    Program("helm", "helm.sh/helm/v4/cmd/helm", "helm.sh/helm/v4", "helm", "helm-{v}-linux-{arch}.tar.gz"),
    Program(
        "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", "etcd", "{v}/etcd-{v}-linux-{arch}.tar.gz"
    ),
)

_CONTAINERD = "github.com/containerd/containerd/v2"
_RUNC = "github.com/opencontainers/runc"
_CNI = "github.com/containernetworking/plugins"
_COREDNS = "github.com/coredns/coredns"
NODE_PROGRAMS = (
    *map(_kubernetes, ("kubelet", "kube-proxy")),
    *(
        Program(
            name,
            f"{_CONTAINERD}/cmd/{name}",
            _CONTAINERD,
            "containerd",
            "{v}/containerd-static-{number}-linux-{arch}.tar.gz",
            NODE_MODULE,
        )
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    *(
        Program(
            package.rsplit("/", 1)[1],
            f"{_CNI}/plugins/{package}",
            _CNI,
            "cni",
            "{v}/cni-plugins-linux-{arch}-{v}.tgz",
            NODE_MODULE,
        )
        for package in ("main/bridge", "main/loopback", "ipam/host-local")
    ),
    Program("runc", _RUNC, _RUNC, "runc", "{v}/runc.{arch}", NODE_MODULE, cgo=True),
    Program("coredns", _COREDNS, _COREDNS, "coredns", "{v}/coredns_{number}_linux_{arch}.tgz", COREDNS_MODULE),
)
"""Programs of a real node: `ensure` installs them only by name."""

_DESCHEDULER = "sigs.k8s.io/descheduler"
PEER_PROGRAMS = (Program("descheduler", f"{_DESCHEDULER}/cmd/descheduler", _DESCHEDULER, "", "", PEER_MODULE),)
"""Programs that the benchmark compares with the operator: `ensure` installs them only by name."""

_PROMETHEUS = "github.com/prometheus/prometheus"
ALERT_PROGRAMS = (Program("promtool", f"{_PROMETHEUS}/cmd/promtool", _PROMETHEUS, "", "", PROMTOOL_MODULE),)
"""The program that tests the alerts: `ensure` installs it only by name. Its release is one archive with Prometheus."""

OLDER_SERVERS = {
    folder.name: tuple(_kubernetes(name, folder) for name in _SERVERS)
    for folder in sorted(KUBERNETES_MODULES.iterdir())
}
"""The servers of each older version of Kubernetes, by its minor version: KUBERNETES_VERSION selects one."""

_SYFT = "github.com/anchore/syft"
IMAGE_PROGRAMS = (
    Program("syft", f"{_SYFT}/cmd/syft", _SYFT, "syft", "{v}/syft_{number}_linux_{arch}.tar.gz", SYFT_MODULE),
)
"""The program that lists the contents of the image: `ensure` installs it only by name."""

_SETS = (PROGRAMS, NODE_PROGRAMS, PEER_PROGRAMS, ALERT_PROGRAMS, IMAGE_PROGRAMS)
_STEPS = {
    MODULE: "control plane, simulator and tools",
    NODE_MODULE: "container runtime",
    COREDNS_MODULE: "CoreDNS",
    PEER_MODULE: "descheduler",
    PROMTOOL_MODULE: "promtool",
    **{KUBERNETES_MODULES / minor: f"Kubernetes {minor}" for minor in OLDER_SERVERS},
    SYFT_MODULE: "syft",
}


def versions(tools: Path = MODULE) -> dict[str, str]:
    """Return module to version from go.mod, the only place that has the versions."""
    found: dict[str, str] = {}
    for line in (tools / "go.mod").read_text().splitlines():
        words = line.split("//", 1)[0].split()
        if len(words) == 2 and words[1].startswith("v"):
            found.setdefault(words[0], words[1])
    return found


def kubernetes_versions() -> dict[str, str]:
    """Return the version of each minor version of Kubernetes that the tests can run on, the oldest first."""
    found = [versions(folder)[_K8S] for folder in (*(KUBERNETES_MODULES / minor for minor in OLDER_SERVERS), MODULE)]
    return {version[1:].rpartition(".")[0]: version for version in found}


def kubernetes_version() -> str:
    """Return the minor version of Kubernetes that this process uses. Raises MissingBinariesError if it is unknown."""
    known = list(kubernetes_versions())
    selected = os.environ.get("KUBERNETES_VERSION") or known[-1]
    if selected not in known:
        raise MissingBinariesError(f"KUBERNETES_VERSION={selected}: it must be one of {', '.join(known)}")
    return selected


def _sets() -> tuple[tuple[Program, ...], ...]:
    """Return all sets of programs; a program counts only in the first set that has its name."""
    older = OLDER_SERVERS.get(kubernetes_version())
    return (older, *_SETS) if older else _SETS


def cache(programs: Sequence[Program] = PROGRAMS) -> Path:
    """Return the folder of the programs: outside the checkout, keyed by their versions."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    known = {tools: versions(tools) for tools in {program.tools for program in programs}}
    wanted = json.dumps({p.name: known[p.tools][p.module] for p in programs}, sort_keys=True)
    return base / "rescheduler" / "binaries" / hashlib.sha256(wanted.encode()).hexdigest()[:12]


def _home(program: Program) -> Path:
    return cache(next(programs for programs in _sets() if program in programs))


def find(name: str) -> Path | None:
    """Return the path of an installed program; None if it is missing."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    homes = [cache(programs) for programs in _sets() if any(program.name == name for program in programs)]
    places = ([Path(assets)] if assets else []) + homes[:1]
    return next((place / name for place in places if os.access(place / name, os.X_OK)), None)


def path(name: str) -> Path:
    """Return the path of a program that `ensure` has installed. Raises MissingBinariesError."""
    found = find(name)
    if found is None:
        raise MissingBinariesError(f"{name} is missing: run `make binaries`")
    return found


def ensure(names: Sequence[str] = ()) -> None:
    """Install the missing ones of these programs, or of the control plane's. Raises MissingBinariesError."""
    known: dict[str, Program] = {}
    for program in (program for programs in _sets() for program in programs):
        known.setdefault(program.name, program)
    default = [program.name for program in PROGRAMS]
    wanted = [program for program in known.values() if program.name in (names or default)]
    if all(find(program.name) for program in wanted):
        return
    for program in wanted:
        _home(program).mkdir(parents=True, exist_ok=True)
    cache().mkdir(parents=True, exist_ok=True)
    with _lock():
        missing = [program for program in wanted if not find(program.name)]
        mode = os.environ.get("BINARIES", "auto")
        if mode not in ("auto", "download", "build"):
            raise MissingBinariesError(f"BINARIES={mode}: it must be auto, download or build")
        if mode != "build":
            silent: set[str] = set()
            missing = [program for program in missing if not _downloaded(program, silent, needed=mode == "download")]
        if missing:
            _build(missing)


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"binaries: {text}\n")
    sys.stderr.flush()


@contextmanager
def _lock() -> Iterator[None]:
    with (cache() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that installs the programs")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# -- download ------------------------------------------------------------------------------------------------------


def _downloaded(program: Program, silent: set[str], *, needed: bool) -> bool:
    """Whether the program was downloaded; `silent` collects sources that do not answer, so that each is tried once."""
    if not program.url:
        return False
    base = os.environ.get(f"RESCHEDULER_SOURCE_{program.source.upper()}", SOURCES[program.source])
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    version = versions(program.tools)[program.module]
    url = f"{base}/{program.url.format(v=version, number=version[1:], arch=arch)}"
    if base in silent:
        return False
    try:
        _check_source(url)
    except OSError as error:
        if needed:
            raise MissingBinariesError(f"{program.name}: {url} does not answer: {error}") from error
        silent.add(base)
        return False
    try:
        say(f"downloading {program.name}")
        data = _fetch(url)
        _verify(url, data)
        _install(program, _unpack(program.name, data) if url.endswith((".tar.gz", ".tgz")) else data)
    except (OSError, tarfile.TarError, ValueError) as error:
        if needed:
            raise MissingBinariesError(f"{program.name} cannot be downloaded from {url}: {error}") from error
        say(f"{program.name} cannot be downloaded: {error}")
        return False
    return True


def _check_source(url: str) -> None:
    """Raise OSError if the source does not answer within seconds; the answer that a file is missing counts."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_ANSWERS_WITHIN):
            return
    except urllib.error.HTTPError as error:
        error.close()


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def _verify(url: str, data: bytes) -> None:
    """Verify the checksum that the source publishes next to the file, if there is one."""
    folder, file = url.rsplit("/", 1)
    release = file.split("_linux_", 1)[0]
    sums = ("SHA256SUMS", "runc.sha256sum", f"{release}_checksums.txt")
    for place in (f"{url}.sha256", f"{url}.sha256sum", *(f"{folder}/{name}" for name in sums)):
        try:
            lines = [line.split() for line in _fetch(place).decode().splitlines() if line.strip()]
        except urllib.error.HTTPError as error:
            error.close()
            # Any other error may be temporary: a program without a check must not be installed.
            if error.code not in (403, 404):
                raise
            continue
        published = [words[0] for words in lines if len(words) == 1 or words[-1].lstrip("*").endswith(file)]
        if hashlib.sha256(data).hexdigest() not in published:
            raise ValueError(f"its checksum differs from the one at {place}")
        return


def _unpack(name: str, data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if member.isfile() and Path(member.name).name == name and (inner := archive.extractfile(member)):
                return inner.read()
    raise ValueError(f"the archive does not contain {name}")


def _install(program: Program, data: bytes) -> None:
    temporary = _home(program) / f".{program.name}.{os.getpid()}"
    temporary.write_bytes(data)
    temporary.chmod(0o755)
    temporary.rename(_home(program) / program.name)


# -- build ---------------------------------------------------------------------------------------------------------


def _build(programs: Sequence[Program]) -> None:
    go = shutil.which("go")
    if go is None:
        names = ", ".join(program.name for program in programs)
        raise MissingBinariesError(
            f"{names}: cannot be downloaded, and to build them Go is missing: install Go 1.26 or newer"
        )
    cores = os.cpu_count() or 1
    say(
        f"building {', '.join(p.name for p in programs)} from source, once: "
        f"up to {_CPU_MINUTES / cores:.0f} minutes on {cores} cores; an interrupted build goes on where it was"
    )
    steps: dict[str, list[Program]] = {}
    for program in programs:
        steps.setdefault(_step(program), []).append(program)
    for step, some in steps.items():
        _go_build(go, some, step)


def _step(program: Program) -> str:
    """Return the key of one build command: programs of one module with the same flags share it."""
    if program.name == "etcd" or program.cgo:
        return program.name
    return _STEPS[program.tools]


def _go_build(go: str, programs: Sequence[Program], step: str) -> None:
    known = versions() | versions(programs[0].tools)
    kubernetes = known[_K8S]
    stamps = {
        "k8s.io/component-base/version.gitVersion": kubernetes,
        "k8s.io/component-base/version.gitMajor": kubernetes[1:].split(".")[0],
        "k8s.io/component-base/version.gitMinor": kubernetes.split(".")[1],
        "sigs.k8s.io/kwok/pkg/consts.Version": known[_KWOK],
    }
    linker = "-s -w " + " ".join(f"-X {name}={value}" for name, value in stamps.items())
    target = cache() / ".build"
    target.mkdir(exist_ok=True)
    output = str(target / "etcd") if programs[0].name == "etcd" else f"{target}/"
    # With the same flags for all programs, Go compiles shared packages only once.
    command = [go, "build", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", linker, "-o", output]
    environment = {**os.environ, "CGO_ENABLED": str(int(programs[0].cgo)), "GOGC": "400", "GOFLAGS": "-mod=readonly"}
    began = time.monotonic()
    with repeated(lambda: say(f"{step}: building, {time.monotonic() - began:.0f} s so far"), every=15):
        result = subprocess.run(
            [*command, *(program.package for program in programs)],
            cwd=programs[0].tools,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if result.returncode:
        raise MissingBinariesError(f"go build failed:\n{result.stdout[-2000:]}")
    for program in programs:
        (target / program.name).rename(_home(program) / program.name)
    say(f"{step}: built in {time.monotonic() - began:.0f} s")
