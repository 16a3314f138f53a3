"""Defaults and parsing of a ReschedulePolicy."""

import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.policies import DrainRule, DrainSettings, ReschedulePolicy, ReschedulePolicySpec
from rescheduler.api.scalars import dump
from rescheduler.api.windows import CRON_PATTERN

DEFAULTS = yaml.safe_load("""
nodeSelector: {matchLabels: {}, matchExpressions: []}
priority: 0
mode: Enforce
suspend: "None"
maintenance:
  enabled: true
  conditions: []
  maxConcurrent: 1
  maxUnavailable: "10%"
  windows: []
  onWindowClose: Finish
failure:
  enabled: true
  conditions:
  - {type: Ready, status: [Unknown], for: 60s}
  - {type: Ready, status: ["False"], for: 3m}
  startupGrace: 10m
  recoverAfter: 2m
  flapping: {changes: 3, within: 15m}
  maxUnhealthy: "20%"
  maxConcurrent: "10%"
  force: WithProof
drain:
  replacement: Preferred
  replacementTimeout: 5m
  timeout: 0s
  onTimeout: Hold
  emptyDir: Evict
  unmanaged: Block
  localVolume: Block
  honour: []
  chainMoves: 0
  noRoom: Hold
  gates: []
  maxEvictionsPerSecond: 20
  excludeFromLoadBalancers: false
  rules: []
rebalance: {enabled: false, high: "80%", low: "50%"}
""")


def test_the_defaults_of_a_policy() -> None:
    assert dump(ReschedulePolicySpec()) == DEFAULTS


def test_a_spec_is_the_same_after_writing_and_reading() -> None:
    spec = ReschedulePolicySpec.model_validate(
        {
            "maintenance": {
                "windows": [{"schedule": "0 22 * * SAT", "duration": "4h", "timeZone": "Europe/Berlin"}],
                "topologyKey": "topology.kubernetes.io/zone",
            },
            "failure": {"leaseTimeout": "20s"},
            "drain": {
                "gracePeriodSeconds": 30,
                "rules": [{"podSelector": {"matchLabels": {"app": "db"}}, "action": "WaitCompleted", "timeout": "4h"}],
            },
        }
    )
    assert ReschedulePolicySpec.model_validate(dump(spec)) == spec


def test_conditions_given_replace_the_default() -> None:
    spec = ReschedulePolicySpec.model_validate({"failure": {"conditions": [{"type": "DiskBad", "status": ["True"]}]}})
    assert [condition.type for condition in spec.failure.conditions] == ["DiskBad"]


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert ReschedulePolicySpec.model_validate({"later": 1, "drain": {"later": 2}}) == ReschedulePolicySpec()


def test_a_policy_is_read_from_its_object() -> None:
    raw = {"metadata": {"name": "p", "uid": "u", "generation": 3}, "spec": {"mode": "Audit"}}
    policy = ReschedulePolicy.from_object(raw)
    assert (policy.name, policy.uid, policy.generation, policy.spec.mode) == ("p", "u", 3, "Audit")
    assert replace(policy, generation=4) != policy


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"mode": "Maybe"}, "mode"),
        ({"drain": {"timeout": "soon"}}, "drain.timeout"),
        ({"maintenance": {"maxConcurrent": "5"}}, "maintenance.maxConcurrent"),
        ({"failure": {"flapping": {"changes": 0}}}, "failure.flapping.changes"),
    ],
)
def test_an_invalid_field_is_refused_by_name(spec: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ReschedulePolicy.from_object({"metadata": {"name": "p"}, "spec": spec})


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * *",
        "*/15 * * * *",
        "0 22 * * SAT",
        "0 22 * * sat,Sun",
        "0 22 1-7 JAN-MAR MON-FRI",
        "05 02 31 12 7",
        "0,30 0-6/2 * * 0",
        "0  2 * * *",
    ],
)
def test_five_field_cron_is_accepted(schedule: str) -> None:
    assert re.fullmatch(CRON_PATTERN, schedule)


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "@daily",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 24 * * *",
        "0 25 * * *",
        "0 0 0 * *",
        "0 0 32 * *",
        "0 0 * 0 *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "0 0 * * FUN",
        "0 0 * * MONDAY",
        "*/0 * * * *",
        "*/60 * * * *",
        "0 */24 * * *",
        "0 0 ? * *",
        "0 0 * * L",
        "0 0 * * 1,",
        " 0 0 * * *",
        "CRON_TZ=UTC 0 0 * * *",
    ],
)
def test_anything_but_five_field_cron_is_refused(schedule: str) -> None:
    assert not re.fullmatch(CRON_PATTERN, schedule)


FIELDS = {"timeout": "1h", "unmanaged": "Evict", "emptyDir": "Block", "localVolume": "Evict", "replacement": "Never"}


@given(st.sets(st.sampled_from(sorted(FIELDS))))
def test_each_field_of_a_rule_that_is_set_replaces_the_field_of_the_drain(given_fields: set[str]) -> None:
    drain, every = DrainSettings(), DrainSettings.model_validate(FIELDS)
    rule = DrainRule.model_validate({name: FIELDS[name] for name in given_fields} | {"order": 7})
    found, other = drain.with_rule(rule), every.with_rule(DrainRule())
    assert dump(found) == dump(drain) | {name: FIELDS[name] for name in given_fields}
    assert (drain.with_rule(None), other) == (drain, every)
