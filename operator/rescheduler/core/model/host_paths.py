"""hostPath volumes: what a pod mounts of the file system of its node.

A single file that is mounted read-only, such as /etc/localtime, ties no pod to a node. A directory may hold data of the
pod that exists on this node only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rescheduler.api.untrusted import bounded_text
from rescheduler.core.model.raw import RawObject, RawPodSpec

_FILE_TYPES = ("File", "FileOrCreate")
_TYPES_WITHOUT_DATA = ("Socket", "CharDevice")
_WELL_KNOWN_FILES = (
    "/etc/adjtime",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/etc/timezone",
    "/var/lib/dbus/machine-id",
)
"""Files of every node. A hostPath without a type says nothing about what is at its path."""
_MAX_PATH_LENGTH = 253


@dataclass(frozen=True, slots=True)
class HostPath:
    """A hostPath volume that is more than a read-only mount of a single file.

    Attributes:
        may_hold_data: whether the pod may write data there: neither read-only, nor a socket or a character device.
    """

    path: str
    may_hold_data: bool


def parse_host_paths(spec: RawPodSpec) -> tuple[HostPath, ...]:
    """Return the hostPath volumes of a raw pod spec, without read-only mounts of single files."""
    found = []
    for volume in spec.get("volumes") or ():
        if "hostPath" not in volume:
            continue
        source = volume["hostPath"] if isinstance(volume["hostPath"], Mapping) else {}
        path, kind = bounded_text(source.get("path"), _MAX_PATH_LENGTH), bounded_text(source.get("type"))
        is_read_only = all(mount.get("readOnly") is True for mount in _mounts(spec, volume))
        if is_read_only and (kind in _FILE_TYPES or (not kind and path in _WELL_KNOWN_FILES)):
            continue
        may_hold_data = not is_read_only and kind not in _TYPES_WITHOUT_DATA
        found.append(HostPath(path, may_hold_data))
    return tuple(found)


def _mounts(spec: RawPodSpec, volume: RawObject) -> Iterator[RawObject]:
    containers = (c for kind in ("containers", "initContainers", "ephemeralContainers") for c in spec.get(kind) or ())
    return (m for c in containers for m in c.get("volumeMounts") or () if m.get("name") == volume.get("name"))
