"""Limit the pools that admission evaluates for each pod."""

from dataclasses import replace

from rescheduler.api.pools import NamespacePool
from rescheduler.core.pools import admission_params
from rescheduler.core.pools.admission_params import skipped_pools
from unit.builders import pool


def named(name: str, count: int = 1, *, exclusive: bool = True, mode: str = "Enforce") -> NamespacePool:
    return pool(name, mode=mode, exclusive=exclusive, namespaces=[f"{name}-{number}" for number in range(count)])


def test_few_pools_are_all_evaluated() -> None:
    assert skipped_pools([named("a"), named("b", exclusive=False), named("c", mode="Audit")]) == frozenset()


def test_three_smallest_exclusive_pools_are_evaluated_of_many() -> None:
    pools = [named("vast", 5000), named("a", 2), named("b", 9), named("c", 1), named("d", 3)]
    assert skipped_pools(pools) == {"vast", "b"}


def test_exclusive_pool_is_never_skipped_for_another_pool() -> None:
    quiet = [named(f"q{n}", exclusive=False) for n in range(5)] + [named(f"a{n}", mode="Audit") for n in range(5)]
    assert "vast" not in skipped_pools([*quiet, named("vast", 5000)])
    assert len(skipped_pools([*quiet, named("vast", 5000)])) == 8


def test_label_is_patched_if_it_differs_with_precondition() -> None:
    made = replace(named("a"), resource_version="7")
    assert admission_params.skip_label_patch(made, skip=False) is None
    label = {"rescheduler.dev/admission-skip": "true"}
    assert admission_params.skip_label_patch(made, skip=True) == {
        "metadata": {"labels": label, "resourceVersion": "7", "uid": "a"}
    }
    patch = admission_params.skip_label_patch(replace(made, admission_skip=True), skip=False)
    assert patch
    assert patch["metadata"]["labels"] == {"rescheduler.dev/admission-skip": None}
