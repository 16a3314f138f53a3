"""The text and the JSON of a check."""

from rescheduler.cli.check import presentation
from rescheduler.cli.check.cluster_facts import ClusterFacts
from rescheduler.cli.check.findings import Finding, Level, Topic
from rescheduler.cli.check.installation import InstallationFacts
from rescheduler.cli.check.pod_findings import PodFacts
from unit.builders import NOW

FACTS = ClusterFacts(InstallationFacts("0.1.0", "v1.37.2"), PodFacts(NOW))
PROBLEM = Finding(
    Level.PROBLEM,
    Topic.PODS,
    "7 pods would block",
    "no controller would recreate this pod",
    "for s/p0: delete the pod: kubectl delete pod -n some-long-namespace some-pod-with-a-long-name; or change the policy",
    [f"s/p{number}" for number in range(7)],
)


def test_the_text_names_few_objects_and_the_json_names_all() -> None:
    text = presentation.as_text(FACTS, [PROBLEM], 80)
    assert "      s/p4" in text
    assert "      and 2 more (-o json lists all)" in text
    (found,) = presentation.as_json(FACTS, [PROBLEM])["findings"]
    assert len(found["objects"]) == 7


def test_lines_keep_the_width_and_never_break_a_command() -> None:
    text = presentation.as_text(FACTS, [PROBLEM], 60)
    command_line = "kubectl delete pod -n some-long-namespace some-pod-with-a-long-name;"
    assert any(command_line in line for line in text)
    assert [line for line in text[1:-1] if len(line) > 60 and command_line not in line] == []


def test_a_next_step_that_begins_with_a_command_is_not_broken() -> None:
    command = "kubectl get pods -n a-namespace -l app.kubernetes.io/name=rescheduler"
    text = presentation.as_text(FACTS, [Finding(Level.NOTE, Topic.PODS, "a", next_step=f"{command}; or wait")], 60)
    assert any(f"{command};" in line for line in text)


def test_the_first_line_says_what_is_installed() -> None:
    assert (
        presentation.as_text(FACTS, [], 80)[0] == "Kubernetes v1.37.2, 0 nodes, 0 pods. Rescheduler is not installed."
    )


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    hostile = Finding(Level.NOTE, Topic.PODS, "a\x1b[2Jb", objects=["c\x07"])
    assert not any("\x1b" in line or "\x07" in line for line in presentation.as_text(FACTS, [hostile], 80))
