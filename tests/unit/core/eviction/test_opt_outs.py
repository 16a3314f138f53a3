"""Opt-outs: the annotations by which a pod asks another tool not to disrupt it."""

from datetime import datetime, timedelta

import pytest

from rescheduler.api import names
from rescheduler.api.policies import OptOutTool
from rescheduler.core.eviction.opt_outs import FOREVER, opt_outs
from rescheduler.core.model.pods import parse_pod
from unit.builders import NOW, pod, raw_pod

KARPENTER, DESCHEDULER = names.KARPENTER_DO_NOT_DISRUPT, names.PREFER_NO_EVICTION


@pytest.mark.parametrize(
    ("value", "started", "until"),
    [
        ("true", NOW, FOREVER),
        ("4h", NOW - timedelta(hours=3), NOW + timedelta(hours=1)),
        ("4h", NOW - timedelta(hours=5), None),
        ("4h", None, FOREVER),
        ("0s", NOW, None),
        ("false", NOW, None),
        ("1.5h", NOW, FOREVER),
        ("yes please", NOW, FOREVER),
    ],
)
def test_opt_out_of_karpenter_is_a_boolean_or_a_duration(
    value: str, started: datetime | None, until: datetime | None
) -> None:
    found = opt_outs(pod(started=started, annotations={KARPENTER: value}), NOW)
    assert [(opt_out.tool, opt_out.annotation, opt_out.until) for opt_out in found] == (
        [(OptOutTool.KARPENTER, KARPENTER, until)] if until else []
    )


@pytest.mark.parametrize(("value", "opts_out"), [("false", True), ("true", False), ("", False), ("False", False)])
def test_opt_out_of_cluster_autoscaler_is_exactly_false(value: str, opts_out: bool) -> None:
    found = opt_outs(pod(annotations={names.SAFE_TO_EVICT: value}), NOW)
    assert [opt_out.tool for opt_out in found] == ([OptOutTool.CLUSTER_AUTOSCALER] if opts_out else [])


@pytest.mark.parametrize("value", ["true", "false", ""])
def test_opt_out_of_the_descheduler_has_any_value(value: str) -> None:
    assert [found.tool for found in opt_outs(pod(annotations={DESCHEDULER: value}), NOW)] == [OptOutTool.DESCHEDULER]


def test_opt_outs_are_kept_when_a_pod_is_parsed() -> None:
    raw = raw_pod("p")
    raw["metadata"]["annotations"] = {KARPENTER: "true", names.SAFE_TO_EVICT: "false", DESCHEDULER: "", "big": "x"}
    assert [found.tool for found in opt_outs(parse_pod(raw), NOW)] == list(OptOutTool)
    assert "big" not in parse_pod(raw).annotations
