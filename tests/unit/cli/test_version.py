"""Versions that do not fit are named, with the fields that an old CRD lacks."""

from typing import Any

from rescheduler.cli.version import _lines, skew


def found(operator: str = "0.1.9", missing: tuple[str, ...] = ()) -> dict[str, Any]:
    crd = {"name": "nodedrains.rescheduler.dev", "version": "", "served": ["v1alpha1"], "missingFields": list(missing)}
    leader = {"namespace": "system", "version": operator, "image": "image:1", "leader": ""}
    return {"plugin": "0.1.0", "operators": [leader], "crds": [crd]}


def test_a_patch_release_of_the_operator_fits_and_another_minor_does_not() -> None:
    assert list(skew(found())) == []
    assert list(skew(found(operator=""))) == []
    (warning,) = skew(found(operator="0.2.0"))
    assert warning.startswith("the operator has version 0.2.0, and the plugin 0.1.0")


def test_an_old_crd_is_named_with_the_fields_that_it_lacks() -> None:
    (warning,) = skew(found(missing=("status.waiting",)))
    assert warning.startswith(
        "the CRD nodedrains.rescheduler.dev is older than the plugin and lacks status.waiting: kubectl"
    )


def test_an_operator_without_crds_is_named() -> None:
    assert [line.split(":")[0] for line in skew(found() | {"crds": []})] == [
        "the CRD nodedrains.rescheduler.dev is not installed"
    ]
    assert list(skew(found() | {"crds": None, "operators": None})) == []


def test_each_part_has_a_line() -> None:
    assert list(_lines(found(), client_only=False)) == [
        "plugin: 0.1.0",
        "operator: 0.1.9 in namespace system (image:1), no process leads",
        "CRD nodedrains: serves v1alpha1",
    ]
    assert list(_lines(found() | {"operators": [], "crds": []}, client_only=False))[1:] == [
        "operator: not installed",
        "CRDs: not installed",
    ]
    assert list(_lines(found(), client_only=True)) == ["plugin: 0.1.0"]
