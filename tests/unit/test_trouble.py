"""Problems below the controllers: counted each time, logged once a minute per subject."""

from typing import Any

import structlog
from kubernetes.aio.client import Configuration

from rescheduler.app import App, Options
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.kube.client import Client


def test_trouble_is_counted_each_time_and_logged_once_a_minute() -> None:
    now = 0.0

    def connect(**how: Any) -> Client:
        return Client(Configuration(host="http://127.0.0.1:1"), **how)

    app = App(connect, Options(), clock=Clock(monotonic=lambda: now), identity="x")
    with structlog.testing.capture_logs() as logs:
        for second in range(130):
            now = float(second)
            app.client.report("watch.failed", "/api/v1/pods", "KeyError: 'x'")
            app.client.report("object.unreadable", f"/api/v1/pods s/p{second % 2}", "OverflowError")
    assert len([line for line in logs if line["event"] == "watch.failed"]) == 3
    assert len([line for line in logs if line["event"] == "object.unreadable"]) == 6
    assert {"subject", "error", "log_level"} <= logs[0].keys()
    registry = app.metrics.registry
    assert registry.get_sample_value("rescheduler_troubles_total", {"event": "watch.failed"}) == 130
    assert registry.get_sample_value("rescheduler_watches_waiting") == 0
    with structlog.testing.capture_logs() as logs:
        for number in range(10_000):
            app.client.report("object.unreadable", f"/api/v1/pods s/other{number}", "OverflowError")
    assert len(logs) <= 200
    now = 200.0
    with structlog.testing.capture_logs() as logs:
        app.client.report("object.unreadable", "/api/v1/pods s/other0", "OverflowError")
    assert len(logs) == 1
