"""The machine under the operator: clocks that jump, few files, little memory, a full disk, and etcd without space."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from harness import ControlPlane, processes
from harness.fault_lab import USER, FaultLab
from harness.machines import MAIN
from harness.waiting import until

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed: apt-get install faketime")
@pytest.mark.parametrize("jump", ["+3600", "-3600"])
def test_a_clock_that_jumps_by_an_hour_changes_nothing(jump: str, quiet: FaultLab, tmp_path: Path) -> None:
    """Intervals are of the monotonic clock, and times are those of the API server."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    operator = quiet.operator(name=f"clock{jump}", environment=fake | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    quiet.leads(operator)
    with quiet.judged(operator):
        node = quiet.busiest()
        quiet.annotate(node)
        until(lambda: quiet.observer.drain(node), "the drain to begin")
        offset.write_text(jump)
        quiet.drained(node)
        quiet.restored(node)
        stamps = [json.loads(line)["timestamp"] for line in operator.log.read_text().splitlines()]
        assert len({stamp[:13] for stamp in stamps}) > 1, "the clock of the log never jumped"
    drain = [e for e in quiet.observer.events("Node", node) if e["reason"] == "Drained"]
    assert drain


def test_with_few_open_files_a_drain_still_ends(quiet: FaultLab) -> None:
    operator = quiet.operator(name="files")
    resource.prlimit(operator.pid, resource.RLIMIT_NOFILE, (40, 40))
    with quiet.judged(operator):
        quiet.drain_during(seconds=240)


def test_in_little_memory_a_drain_ends(quiet: FaultLab) -> None:
    operator = quiet.operator(name="memory")
    quiet.leads(operator)
    resource.prlimit(operator.pid, resource.RLIMIT_DATA, (400 * 2**20, 400 * 2**20))
    with quiet.judged(operator):
        quiet.drain_during()
        assert operator.memory() < 200


def test_without_a_place_for_its_log_a_drain_ends(quiet: FaultLab) -> None:
    operator = quiet.operator(name="log", log=Path("/dev/full"))
    pid = operator.pid
    with quiet.judged():
        quiet.drain_during()
    assert operator.running
    assert operator.pid == pid


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultLab]:
    """Yield a lab whose etcd takes 24 MB."""
    flags = {"etcd": {"quota-backend-bytes": str(24 * 2**20)}}
    with (
        ControlPlane.start(audit=True, bodies_of=USER, extra_args=flags) as plane,
        FaultLab(plane, tmp_path_factory.mktemp("small")) as made,
    ):
        yield made


def etcd(lab: FaultLab, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request to etcd's gateway for JSON."""
    (pid,) = [p for p in processes.of(lab.plane.workdir) if processes.program(p) == "etcd"]
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    (address,) = [word.partition("=")[2] for word in words if word.startswith("--listen-client-urls=")]
    answer = requests.post(f"{address}/v3/{path}", json=body, timeout=60)
    answer.raise_for_status()
    return dict(answer.json())


def test_an_etcd_without_space_costs_the_lease_and_work_goes_on_when_there_is_space(small: FaultLab) -> None:
    operator = small.operator(name="space")
    small.leads(operator)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big", "namespace": "default"}}
    session = small.observer.api.session
    url = f"{small.plane.server}/api/v1/namespaces/default/configmaps"

    def fill() -> bool:
        big = body | {"metadata": {"generateName": "big-", "namespace": "default"}, "data": {"x": "y" * 900_000}}
        return "database space exceeded" in session.post(url, json=big, timeout=30).text

    with small.judged(operator):
        node = small.busiest()
        until(fill, "etcd to have no space", every=0)
        until(lambda: '"leader.lost"' in operator.log.read_text(), "the Lease to run out", seconds=60)
        assert operator.probe("healthz") == 200
        session.delete(url, timeout=60)
        revision = etcd(small, "kv/range", {"key": "AA==", "limit": "1"})["header"]["revision"]
        etcd(small, "kv/compaction", {"revision": revision, "physical": True})
        etcd(small, "maintenance/defragment", {})
        for alarm in etcd(small, "maintenance/alarm", {"action": "GET"}).get("alarms", []):
            etcd(small, "maintenance/alarm", {"action": "DEACTIVATE", **alarm})
        small.late = 120.0
        small.plane.fail_rack(MAIN)  # the simulated kubelets would back off for minutes
        small.plane.recover_rack(MAIN)
        small.settle()
        small.annotate(node)
        small.drained(node, seconds=180)
        small.restored(node)
