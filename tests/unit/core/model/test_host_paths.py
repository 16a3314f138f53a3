"""hostPath volumes: read-only mounts of single files tie no pod to its node."""

from typing import Any

import pytest

from rescheduler.core.model.pods import parse_pod


def mounted(source: object, *read_only: object, kind: str = "containers") -> tuple[tuple[str, ...], bool]:
    """Return the hostPaths of a pod that count, and whether one may hold data; one mount for each `read_only`."""
    mounts = [{"name": "v", "readOnly": value} for value in read_only]
    other = {"name": "c", "volumeMounts": [{"name": "other"}]}
    spec: dict[str, Any] = {"volumes": [{"name": "v", "hostPath": source}, {"name": "other", "emptyDir": {}}]}
    spec |= {"containers": [other]}
    spec[kind] = [*spec.get(kind, ()), {"name": "d", "volumeMounts": mounts}]
    found = parse_pod({"metadata": {"namespace": "s", "name": "p", "uid": "u"}, "spec": spec})
    return found.host_paths, found.has_host_data


@pytest.mark.parametrize(
    "source",
    [
        {"path": "/etc/localtime"},
        {"path": "/etc/localtime", "type": ""},
        {"path": "/data/model", "type": "File"},
        {"path": "/run/flag", "type": "FileOrCreate"},
    ],
)
def test_a_read_only_mount_of_a_single_file_does_not_count(source: dict[str, str]) -> None:
    assert mounted(source, True, True) == ((), False)
    assert mounted(source, True, False) == ((source["path"],), True)
    assert mounted(source, None) == ((source["path"],), True)


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_a_mount_of_any_container_counts(kind: str) -> None:
    assert mounted({"path": "/f", "type": "File"}, False, kind=kind) == (("/f",), True)


@pytest.mark.parametrize(
    ("source", "read_only", "has_data"),
    [
        ({"path": "/data"}, False, True),
        ({"path": "/data"}, True, False),
        ({"path": "/data", "type": "DirectoryOrCreate"}, False, True),
        ({"path": "/etc/ssl", "type": "Directory"}, True, False),
        ({"path": "/run/docker.sock", "type": "Socket"}, False, False),
        ({"path": "/dev/fuse", "type": "CharDevice"}, False, False),
        ({"path": "/dev/sdb", "type": "BlockDevice"}, False, True),
    ],
)
def test_any_other_host_path_counts_and_may_hold_data(source: dict[str, str], read_only: bool, has_data: bool) -> None:
    assert mounted(source, read_only) == ((source["path"],), has_data)


@pytest.mark.parametrize("source", [5, None, {"path": 5, "type": ["File"]}])
def test_an_unreadable_host_path_counts(source: object) -> None:
    assert mounted(source, False) == (("",), True)
