"""Paths: a name of another client becomes one segment, or an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from rescheduler.kube import paths
from rescheduler.kube.client import ApiError


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../b", "/", "a%2Fb", "%", "a\nb", "\ud800"])
def test_an_invalid_name_is_refused_with_a_message(name: str) -> None:
    for make in (
        paths.node,
        paths.drain,
        paths.leases,
        lambda n: paths.pod("s", n),
        lambda n: paths.machine("v1", n, "m"),
    ):
        with pytest.raises(ApiError, match="not a valid object name") as refused:
            make(name)
        assert refused.value.code == 400


@given(st.text(min_size=1))
def test_a_valid_name_stays_one_segment_of_the_path(name: str) -> None:
    try:
        path = paths.pod("space", name)
    except ApiError:
        return
    url = URL(f"https://server{path}/eviction", encoded=True)
    assert url.raw_path.split("/")[:6] == ["", "api", "v1", "namespaces", "space", "pods"]
    assert len(url.raw_path.split("/")) == 8
    assert (url.query_string, url.fragment) == ("", "")
    assert url.parts[6] == name


def test_names_of_the_api_are_not_escaped() -> None:
    assert paths.node("n-1.example.com") == "/api/v1/nodes/n-1.example.com"
    assert paths.in_all_namespaces("apps/v1", "replicasets") == "/apis/apps/v1/replicasets"
    assert paths.in_all_namespaces("v1", "pods") == paths.PODS
