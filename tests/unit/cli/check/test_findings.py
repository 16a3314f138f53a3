"""The order of findings."""

from rescheduler.cli.check.findings import Finding, Level, Topic, has_problem, sort_findings


def test_findings_are_sorted_by_level_and_then_by_topic() -> None:
    rows = [
        Finding(Level.OK, Topic.RIGHTS, "a"),
        Finding(Level.WARNING, Topic.NEIGHBOURS, "b"),
        Finding(Level.WARNING, Topic.BUDGETS, "c"),
        Finding(Level.PROBLEM, Topic.PODS, "d"),
    ]
    assert [found.state for found in sort_findings(rows)] == ["d", "c", "b", "a"]
    assert has_problem(rows)
    assert not has_problem(rows[:3])
