"""Lists with unreadable objects."""

from structlog.testing import capture_logs

import hostile
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.core.model import pods


def test_an_unreadable_object_is_left_out_and_logged() -> None:
    rows = [hostile.POD, {"metadata": {"name": "x" * 500}}, {}, hostile.POD]
    with capture_logs() as logs:
        found = list(readable_objects(rows, pods.parse_pod))
    assert [pod.name for pod in found] == ["web-1", "web-1"]
    assert [line["event"] for line in logs] == ["object.unreadable"] * 2
    assert "metadata.namespace" in logs[0]["error"]
    assert max(len(str(line)) for line in logs) < 500
