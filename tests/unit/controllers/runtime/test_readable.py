"""Lists with objects that cannot be read."""

from structlog.testing import capture_logs

import hostile
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.core.model import pods


def test_an_object_that_cannot_be_read_costs_itself_and_is_logged() -> None:
    rows = [hostile.POD, {"metadata": {"name": "x" * 500}}, {}, hostile.POD]
    with capture_logs() as logs:
        found = list(readable_objects(rows, pods.parse_pod))
    assert [pod.name for pod in found] == ["web-1", "web-1"]
    assert [line["event"] for line in logs] == ["object.unreadable"] * 2
    assert "metadata.namespace" in logs[0]["error"]
    assert max(len(str(line)) for line in logs) < 500
