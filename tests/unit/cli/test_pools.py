"""Pools with a condition that is not as it should be are named."""

from typing import Any

from rescheduler.cli.pools import _with_resources, pool_problems


def pool(name: str, **conditions: str) -> dict[str, Any]:
    found = [{"type": kind, "status": status, "message": f"{kind} m"} for kind, status in conditions.items()]
    status = {"conditions": found, "requested": {"cpu": "3", "memory": "1Gi"}, "allocatable": {"cpu": "8"}}
    return {"metadata": {"name": name}, "status": status}


def test_each_bad_condition_is_a_line() -> None:
    good = pool("good", Ready="True", Conflict="False", SurvivesNodeLoss="True", Other="False")
    bad = pool("bad", Ready="False", Conflict="True", Enforced="Unknown")
    assert pool_problems([good, bad, {"metadata": {"name": "new"}}]) == [
        "bad: Ready=False: Ready m",
        "bad: Conflict=True: Conflict m",
        "bad: Enforced=Unknown: Enforced m",
    ]


def test_wide_has_requests_and_capacity() -> None:
    table = [["NAME", "NODES"], ["a", "3"], ["gone", "1"]]
    assert _with_resources(table, {"a": pool("a")}) == [
        ["NAME", "NODES", "CPU", "MEMORY"],
        ["a", "3", "3/8", "1Gi/"],
        ["gone", "1", "/", "/"],
    ]
