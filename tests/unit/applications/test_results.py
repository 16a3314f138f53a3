"""What counts as a failure of a drain, and the table."""

from applications.results import Drained, Result, below, table
from applications.runs import leftovers


def test_a_blocked_drain_that_names_its_blockers_is_no_failure() -> None:
    blocked = Drained("node-1", finished=False, seconds=20, pods=1, blockers=("web: NoRoom",))
    assert not Result("shop", drains=[blocked]).failures


def test_each_kind_of_failure_is_named() -> None:
    unnamed = Drained("node-1", finished=False, seconds=240, pods=1, unexplained=("shop/web-1",))
    result = Result("shop", drains=[unnamed], below=["deployment.web (1 of 2)"], past_budget=1, left=["nodes n1 has x"])
    assert result.failures == [
        "node-1: no blocker for shop/web-1",
        "deployment.web (1 of 2) fell below its count",
        "1 pods were deleted past a budget",
        "left behind: nodes n1 has x",
    ]
    assert Result("shop", trouble="no nodes").failures == ["cannot be run: no nodes"]


def test_only_deployments_that_were_complete_can_fall_below_their_count() -> None:
    start = {"deployment.a": 2, "deployment.b": 2, "deployment.c": 1}
    least = {"deployment.a": 1, "deployment.b": 2, "deployment.c": 0}
    counts = {"deployment.a": 2, "deployment.b": 2, "deployment.c": 2, "deployment.zero": 0}
    assert below(start, least, counts) == {"deployment.a": "deployment.a (1 of 2)"}


def test_a_deployment_whose_shortage_was_reported_is_no_failure() -> None:
    result = Result("shop", deployments=1, below_reported=["deployment.a (1 of 2)"])
    assert not result.failures
    assert "| deployment.a (1 of 2), reported |" in table([result])


def test_keys_of_the_operator_are_found_wherever_they_are() -> None:
    raw = {
        "metadata": {
            "labels": {"app": "x", "rescheduler.dev/a": ""},
            "annotations": {"rescheduler.dev/b": "", "controller.kubernetes.io/pod-deletion-cost": "-1"},
            "finalizers": ["rescheduler.dev/c"],
        },
        "spec": {
            "taints": [{"key": "rescheduler.dev/d"}, {"key": "other"}],
            "schedulingGates": [{"name": "rescheduler.dev/e"}],
        },
    }
    assert leftovers(raw) == [
        "controller.kubernetes.io/pod-deletion-cost",
        *(f"rescheduler.dev/{key}" for key in "abcde"),
    ]
    assert not leftovers({"metadata": {"name": "x", "labels": None}})


def test_the_table_has_one_row_for_each_application() -> None:
    drains = [
        Drained("node-1", finished=True, seconds=6.4, pods=3),
        Drained("node-2", finished=False, seconds=21, pods=1, blockers=("web: NoRoom",), waiting=("web",)),
    ]
    rows = table([Result("shop", objects=9, pods=4, deployments=2, drains=drains), Result("x", trouble="a | b")])
    assert rows.splitlines()[2:] == [
        "| shop | 9 | 4 | 1 of 2, slowest 21 s | web: NoRoom | web | 0 of 2 | 0 | none |",
        "| x | cannot be run: a / b | | | | | | | |",
    ]
