"""`kubectl reschedule drain` and `cancel`, with the operator at work."""

from cluster import workloads
from cluster.waiting import until
from e2e.conftest import Site
from e2e.test_plans import reschedule


def test_a_drain_by_hand_is_followed_to_its_end_and_withdrawn(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    site.on_first(first, others, workloads.deployment("web", 2, site.name, **site.here()))
    found = reschedule(site.plane.kubeconfig, "drain", first, "-m", "swap disk")
    assert found.returncode == 0, found
    assert "Drained" in found.stdout.splitlines()[-1]
    assert site.left(first) == []
    assert reschedule(site.plane.kubeconfig, "cancel", first).returncode == 0
    site.gone(first)
    node = site.plane.get("node", first)
    assert not node["spec"].get("unschedulable")


def test_cancel_withdraws_the_annotation_too(site: Site) -> None:
    (first,) = site.nodes(1)
    site.policy()
    site.annotate(first)
    until(lambda: site.observer.drain(first), "the NodeDrain")
    assert "every request is withdrawn" in reschedule(site.plane.kubeconfig, "cancel", first).stdout
    site.gone(first)
    assert "rescheduler.dev/maintenance" not in site.plane.get("node", first)["metadata"].get("annotations", {})
    assert "nothing asks" in reschedule(site.plane.kubeconfig, "cancel", first).stdout
