"""Known helpers, by the labels of their pods."""

import pytest

from rescheduler.api.policies import DrainRule, DrainSettings
from rescheduler.core.eviction.helpers import HELPER_ORDER, is_helper
from rescheduler.core.eviction.pod_actions import (
    CRITICAL_ORDER,
    EvictionContext,
    PodAction,
    decide_action,
    needs_placement,
)
from unit.builders import NOW, pod

MOUNT = {"app.kubernetes.io/name": "juicefs-mount"}


@pytest.mark.parametrize(
    ("labels", "helps"),
    [
        (MOUNT, True),
        ({"kubevirt.io": "hotplug-disk"}, True),
        ({"longhorn.io/component": "instance-manager"}, True),
        ({"s3.csi.aws.com/mountpoint-version": "1.2.3"}, True),
        ({"app.kubernetes.io/name": "juicefs-csi-driver"}, False),
        ({"kubevirt.io": "virt-launcher"}, False),
        ({"longhorn.io/component": "share-manager"}, False),
        ({}, False),
    ],
)
def test_helpers_are_known_by_their_label(labels: dict[str, str], helps: bool) -> None:
    assert is_helper(pod(labels=labels)) is helps


def test_a_helper_leaves_after_other_pods_and_before_critical_ones() -> None:
    assert decide_action(pod(labels=MOUNT), DrainSettings(), EvictionContext(NOW)).order == HELPER_ORDER
    assert 0 < HELPER_ORDER < CRITICAL_ORDER


def test_the_order_of_a_rule_is_stronger() -> None:
    ruled = DrainSettings(rules=(DrainRule(order=7),))
    assert decide_action(pod(labels=MOUNT), ruled, EvictionContext(NOW)).order == 7


def test_a_helper_without_a_controller_leaves_and_needs_no_room_elsewhere() -> None:
    mount = pod(labels=MOUNT, owner=None)
    decision = decide_action(mount, DrainSettings(), EvictionContext(NOW))
    assert decision.action is PodAction.EVICT
    assert not needs_placement(mount, decision)
