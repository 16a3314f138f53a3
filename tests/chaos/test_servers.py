"""API servers that go, change, or have an old view."""

import time

from harness.fault_lab import FaultLab
from harness.proxy import Fault
from harness.second_apiserver import second_apiserver
from harness.waiting import until
from harness.wire_faults import watches


def test_two_api_servers_that_restart_in_turn_delay_a_drain_and_no_more(quiet: FaultLab) -> None:
    proxy = quiet.proxy()
    operator = quiet.operator(proxy, name="rolling")
    quiet.leads(operator)
    with quiet.judged(operator), second_apiserver(quiet.plane) as (second, _):
        to_second = Fault(server=second)
        node = quiet.busiest()
        quiet.annotate(node)
        for _ in range(4):
            with proxy.fault(to_second):
                time.sleep(2)
            proxy.disconnect()
            time.sleep(2)
        quiet.drained(node)
        quiet.restored(node)
    assert proxy.harmed


def test_watches_of_an_api_server_with_an_old_view_cost_time_and_no_pod(quiet: FaultLab) -> None:
    """Requests go to a server that is current, watches to one whose link to etcd is frozen."""
    proxy = quiet.proxy()
    operator = quiet.operator(proxy, name="stale")
    quiet.leads(operator)
    with quiet.judged(operator), second_apiserver(quiet.plane) as (second, link):
        with proxy.fault(Fault(watches, server=second)):
            time.sleep(2)
            node = quiet.busiest()
            quiet.annotate(node)
            until(lambda: quiet.observer.drain(node), "the drain to begin")
            link.frozen.set()
            time.sleep(20)
            link.frozen.clear()
        quiet.late = 90.0
        quiet.drained(node, seconds=240)
        quiet.restored(node, seconds=240)


def test_a_withdrawn_request_is_seen_despite_an_old_view(quiet: FaultLab) -> None:
    """The watch never shows that the annotation is gone; the next list does."""
    proxy = quiet.proxy()
    operator = quiet.operator(proxy, name="withdrawn")
    quiet.leads(operator)
    with (
        quiet.judged(operator),
        second_apiserver(quiet.plane) as (second, link),
        proxy.fault(Fault(watches, server=second)),
    ):
        time.sleep(2)
        node = quiet.busiest()
        quiet.annotate(node)
        quiet.drained(node)
        link.frozen.set()
        quiet.late = 90.0
        quiet.restored(node, seconds=150)
        link.frozen.clear()


def test_an_api_server_that_crashes_in_the_middle_delays_a_drain_and_no_more(quiet: FaultLab) -> None:
    operator = quiet.operator(name="crash")
    quiet.leads(operator)
    with quiet.judged(operator):
        node = quiet.busiest()
        quiet.annotate(node)
        until(lambda: quiet.observer.drain(node), "the drain to begin")
        quiet.plane.stop_apiserver()
        time.sleep(8)
        quiet.plane.start_apiserver()
        quiet.late = 60.0
        quiet.drained(node, seconds=180)
        quiet.restored(node)
