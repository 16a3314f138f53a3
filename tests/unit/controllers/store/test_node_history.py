"""The history of nodes: conditions, boots, cordons and silent Leases."""

from datetime import timedelta
from functools import partial

from rescheduler.controllers.store.node_history import NodeHistory
from rescheduler.core.failure import condition_history
from rescheduler.core.model.nodes import Node
from unit import builders
from unit.builders import NOW

NONE = frozenset[str]()


def observed_node(*, ready: str = "True", cordoned: bool = False, boot: str = "b1", uid: str = "u1") -> Node:
    return builders.node("n1", ready=ready, unschedulable=cordoned, boot_id=boot, uid=uid)


class Observer:
    """Pass observations of one node to a history, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.history = NodeHistory(lambda: self.now)
        self.last: Node | None = None

    def see(self, seen: Node, *, after: float = 0) -> None:
        self.now += timedelta(seconds=after)
        self.history.observe(self.last, seen, None)
        self.last = seen


def test_a_new_node_has_a_condition_history_at_once() -> None:
    observer = Observer()
    observer.see(observed_node())
    assert observer.history.conditions["n1"].was_ready
    assert observer.history.conditions["n1"].healthy_since == NOW


def test_a_condition_counts_from_the_observation_of_its_change() -> None:
    observer = Observer()
    observer.see(observed_node())
    observer.see(observed_node(ready="False"), after=30)
    observer.see(observed_node(ready="False", boot="b2"), after=30)
    assert observer.history.conditions["n1"].status_since["Ready"] == ("False", NOW + timedelta(seconds=30))


def test_a_cordon_has_the_time_of_its_observation() -> None:
    observer = Observer()
    observer.see(observed_node())
    observer.see(observed_node(cordoned=True), after=5)
    observer.see(observed_node(cordoned=True, boot="b2"), after=5)
    assert observer.history.cordoned_at("n1") == NOW + timedelta(seconds=5)
    observer.see(observed_node(), after=5)
    assert observer.history.cordoned_at("n1") is None


def test_a_cordon_before_the_first_observation_has_no_time() -> None:
    observer = Observer()
    observer.see(observed_node(cordoned=True))
    assert observer.history.cordoned_at("n1") is None


def test_the_boots_of_a_node_are_observed() -> None:
    observer = Observer()
    assert observer.history.boots("n1") is None
    observer.see(observed_node())
    observer.see(observed_node(boot="b2"))
    boots = observer.history.boots("n1")
    assert boots is not None
    assert boots.boot_id == "b2"


def test_a_suspected_node_is_not_healthy_after_the_next_refresh() -> None:
    observer = Observer()
    observer.see(observed_node())
    observer.history.set_suspected_nodes(frozenset({"n1"}), frozenset({"n1"}), NONE)
    assert observer.history.conditions["n1"].healthy_since
    assert observer.history.refresh_conditions(observed_node(), None).healthy_since is None


def test_new_sets_of_suspected_nodes_are_told_from_equal_ones() -> None:
    history, one = Observer().history, frozenset({"n1"})
    assert not history.set_suspected_nodes(NONE, NONE, NONE)
    assert history.set_suspected_nodes(NONE, one, NONE)
    assert not history.set_suspected_nodes(NONE, one, NONE)
    assert history.set_suspected_nodes(NONE, one, one)
    assert (history.suspected_nodes, history.nodes_with_late_lease, history.nodes_with_renewed_lease) == (
        NONE,
        one,
        one,
    )


def test_every_condition_timer_restarts_after_a_blackout() -> None:
    observer = Observer()
    observer.see(observed_node())
    observer.now += timedelta(hours=1)
    observer.history.restart_condition_timers()
    found = observer.history.conditions["n1"]
    assert found.status_since["Ready"] == ("True", observer.now)
    assert found.healthy_since == observer.now


def test_a_record_of_an_earlier_process_amends_the_conditions() -> None:
    observer = Observer()
    observer.see(observed_node())
    amend = partial(condition_history.with_flapping, changes=2, last_change=NOW)
    found = observer.history.amend_conditions("n1", amend)
    assert len(found.failure_starts) == 2
    assert observer.history.conditions["n1"] == found


def test_a_deleted_node_is_forgotten() -> None:
    observer = Observer()
    observer.see(observed_node())
    observer.see(observed_node(cordoned=True))
    observer.history.forget("n1")
    assert not observer.history.conditions
    assert observer.history.boots("n1") is None
    assert observer.history.cordoned_at("n1") is None


def test_a_new_node_with_the_same_name_has_a_new_history() -> None:
    observer = Observer()
    observer.see(observed_node())
    observer.see(observed_node(ready="False", uid="u2"))
    assert not observer.history.conditions["n1"].was_ready


def test_nodes_that_do_not_report_are_known_by_name() -> None:
    observer = Observer()
    observer.see(observed_node(ready="Unknown"))
    assert observer.history.unknown_nodes == {"n1"}
    observer.see(observed_node())
    assert not observer.history.unknown_nodes
    observer.see(observed_node(ready="Unknown"))
    observer.history.forget("n1")
    assert not observer.history.unknown_nodes
