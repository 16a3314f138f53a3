"""The operator works if its Lease was renewed in time, by the clock of the API server."""

from typing import Any

import pytest

from rescheduler.cli.operator_lease import Leader, read_leaders


class Api:
    def __init__(self, renewed: str, *, ok: bool = True) -> None:
        self.ok, self.headers = ok, {"Date": "Thu, 01 Jan 2026 12:00:00 GMT"}
        self._spec = {"holderIdentity": "pod-0", "renewTime": renewed, "leaseDurationSeconds": 15}

    def send(self, *_: str, **__: Any) -> "Api":
        return self

    def json(self) -> Any:
        return {"items": [{"metadata": {"namespace": "system"}, "spec": self._spec}]}


@pytest.mark.parametrize(
    ("renewed", "current"), [("2026-01-01T11:59:50.5Z", True), ("2026-01-01T11:59:44Z", False), ("never", False)]
)
def test_a_lease_that_is_renewed_in_time_is_current(renewed: str, current: bool) -> None:
    assert read_leaders(Api(renewed)) == [Leader("system", "pod-0", current)]  # type: ignore[arg-type]


def test_without_the_right_to_list_leases_nothing_is_known() -> None:
    assert read_leaders(Api("", ok=False)) is None  # type: ignore[arg-type]
