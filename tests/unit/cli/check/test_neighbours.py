"""The table of tools that react to a drain."""

from pathlib import Path

import pytest

from rescheduler.cli.check import messages
from rescheduler.cli.check.findings import Finding, Level
from rescheduler.cli.check.neighbours import NEIGHBOURS, Image, find_neighbours
from unit.builders import node

DOCS = Path(__file__).parents[4] / "docs"


def names(groups: list[str], *images: str) -> list[str]:
    found = find_neighbours(groups, [Image(image, "s/p") for image in images], ())
    return [row.state for row in found if row.level is not Level.OK]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("ghcr.io/kubereboot/kured:1.17.0", "kured"),
        ("registry.k8s.io/descheduler/descheduler:v0.33.0@sha256:abc", "descheduler"),
        ("registry:5000/autoscaling/cluster-autoscaler-arm64:v1", "cluster-autoscaler"),
        ("public.ecr.aws/aws-ec2/aws-node-termination-handler:v1", "node termination handler"),
        ("vpa-updater", "Vertical Pod Autoscaler"),
    ],
)
def test_a_tool_is_recognised_by_its_image_in_any_registry(image: str, name: str) -> None:
    assert names([], image) == [f"{name} is there (pod s/p)"]


def test_a_part_of_a_name_is_not_enough() -> None:
    assert names([], "kured-ui:1", "example.com/kured/web:1", "my-descheduler:2") == []


def test_tools_that_share_a_group_are_told_apart_by_their_resources() -> None:
    assert names(["argoproj.io", "argoproj.io/rollouts"]) == ["Argo Rollouts is there (API argoproj.io/rollouts)"]


def test_a_tool_with_several_marks_is_one_finding() -> None:
    assert len(names(["upgrade.cattle.io"], "rancher/system-upgrade-controller:v1")) == 1


def test_nodes_that_another_controller_holds_are_named() -> None:
    held = node("n1", annotations={"talos.dev/cordoned": "true"}, unschedulable=True)
    (found,) = find_neighbours([], [], [held, node("n2")])
    assert list(found.objects) == ["n1: Talos holds the node (annotation talos.dev/cordoned)"]


def test_without_any_the_check_reports_that_it_looked() -> None:
    (found,) = find_neighbours(["apps"], [Image("nginx", "s/p")], [node("n")])
    assert isinstance(found, Finding)
    assert found.level is Level.OK


def test_each_tool_has_its_meaning_and_its_row_in_the_docs() -> None:
    assert {row.name for row in NEIGHBOURS} == messages.NEIGHBOUR_TEXTS.keys()
    page = (DOCS / "guides" / "check.md").read_text()
    assert [row.name for row in NEIGHBOURS if f"| {row.name} |" not in page] == []
