"""The Lease of the operator: which process leads, and whether it works."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from rescheduler.api.untrusted import parse_time
from rescheduler.cli.cluster_api import ClusterApi

_LEASE = "rescheduler"


@dataclass(frozen=True, slots=True)
class Leader:
    """The process that leads an installation. `current`: it has renewed its Lease in time."""

    namespace: str
    holder: str
    current: bool


def read_leaders(server: ClusterApi) -> list[Leader] | None:
    """Return the leader of each installation; None if Leases may not be listed. Raises PluginError."""
    answer = server.send("get", "coordination.k8s.io/v1", "leases", params={"fieldSelector": f"metadata.name={_LEASE}"})
    if not answer.ok:
        return None
    now = _server_time(answer.headers.get("Date", ""))
    leaders = []
    for lease in answer.json().get("items") or ():
        spec = lease.get("spec") or {}
        renewed = parse_time(spec.get("renewTime"))
        duration = timedelta(seconds=int(spec.get("leaseDurationSeconds") or 0))
        current = bool(spec.get("holderIdentity") and renewed and now - renewed <= duration)
        leaders.append(Leader(lease["metadata"]["namespace"], spec.get("holderIdentity") or "", current))
    return leaders


def _server_time(date: str) -> datetime:
    """Return the time of the API server, because the clock of the user may be wrong."""
    try:
        return parsedate_to_datetime(date)
    except ValueError:
        return datetime.now(UTC)
