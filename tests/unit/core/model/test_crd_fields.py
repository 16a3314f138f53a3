"""Which fields a CRD stores, and which of them an older one lacks."""

from copy import deepcopy
from typing import Any

import pytest

from rescheduler.api import VERSION
from rescheduler.api.crds import crds
from rescheduler.core.model.crd_fields import is_served, missing_fields, stored_fields

KNOWN = {resource: stored_fields(crd) for resource, crd in crds().items()}


def older(resource: str, *path: str, value: str = "") -> dict[str, Any]:
    """Return the CRD without the field at this path of its status, or without this value of the field."""
    crd = deepcopy(crds()[resource])
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    for name in path[:-1]:
        schema = schema["properties"][name]
        schema = schema.get("items", schema)
    if value:
        schema["properties"][path[-1]]["enum"].remove(value)
    else:
        del schema["properties"][path[-1]]
    return crd


def without_version(resource: str, version: str) -> dict[str, Any]:
    """Return the CRD that does not serve this version."""
    crd = deepcopy(crds()[resource])
    for each in crd["spec"]["versions"]:
        each["served"] = each["name"] != version
    return crd


@pytest.mark.parametrize(
    ("crd", "missing"),
    [
        (older("nodedrains", "cameBack"), (".status.cameBack",)),
        (older("nodedrains", "cameBack", "pods"), (".status.cameBack[].pods",)),
        (older("nodedrains", "phase", value="Drained"), (".status.phase=Drained",)),
        (crds()["nodedrains"], ()),
        (without_version("nodedrains", "v1beta1"), ("version v1beta1",)),
    ],
)
def test_an_older_crd_lacks_fields_and_values_named_without_their_parts(
    crd: dict[str, Any], missing: tuple[str, ...]
) -> None:
    assert missing_fields(KNOWN["nodedrains"], stored_fields(crd)) == missing


def test_a_newer_crd_has_all_fields() -> None:
    known = stored_fields(older("nodedrains", "cameBack"))
    assert missing_fields(known, KNOWN["nodedrains"]) == ()


@pytest.mark.parametrize("crd", [{}, {"spec": {}}, {"spec": {"versions": [{"name": "v1", "served": True}]}}])
def test_a_crd_without_the_version_stores_nothing(crd: dict[str, Any]) -> None:
    assert stored_fields(crd) == frozenset()
    assert not is_served(crd)


def test_a_crd_whose_version_is_not_served_is_named() -> None:
    crd = without_version("nodedrains", VERSION)
    assert not is_served(crd)
    assert missing_fields(KNOWN["nodedrains"], stored_fields(crd)) == (f"version {VERSION}",)


def test_a_sibling_whose_name_begins_the_same_is_named_too() -> None:
    assert missing_fields({".a", ".ab", ".a.c", ".a=x", ".a[].d"}, ()) == (".a", ".ab")
