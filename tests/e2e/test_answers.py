"""Answers of the API server to evictions, and their forecasts: dry runs, so nothing moves."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

from e2e.conftest import Site
from harness import workloads
from harness.waiting import until
from rescheduler.api.drains import BlockerClass
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult, classify
from rescheduler.core.model import disruption_budgets, pods
from rescheduler.kube.client import STRATEGIC_PATCH, ApiError, Client

NEVER = {"annotations": {"cluster/never-ready": "true"}}


@pytest.fixture
async def client(identity: Path) -> AsyncIterator[Client]:
    """Yield the operator's client under its identity."""
    way = Configuration()
    await load_kube_config(config_file=str(identity), client_configuration=way, persist_config=False)
    found = Client(way)
    yield found
    await found.close()


async def ask(
    client: Client, namespace: str, pod: str, uid: str, budget: disruption_budgets.DisruptionBudget | None = None
) -> EvictionResult:
    """Return the classified answer to a dry run of an eviction."""
    options = {"preconditions": {"uid": uid}, "dryRun": ["All"]}
    meta = {"name": pod, "namespace": namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta, "deleteOptions": options}
    try:
        await client.create(f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction?dryRun=All", body, timeout=40)
    except ApiError as error:
        return classify(error.response, budget)
    return EvictionResult(EvictionOutcome.ACCEPTED)


def foreseen(site: Site, namespace: str, raw: dict[str, Any]) -> bool | None:
    """Whether the watched budgets would allow the eviction; None if several budgets select the pod."""
    rows = [disruption_budgets.parse_budget(b) for b in site.plane.get("pdb", "-n", namespace)["items"]]
    pod = pods.parse_pod(raw)
    covering = disruption_budgets.budgets_for(pod, rows)
    return None if len(covering) > 1 else all(budget.allows_eviction_of(pod) for budget in covering)


@pytest.mark.every_version("maintenance")
async def test_each_answer_of_the_server_is_told_apart_and_foreseen(site: Site, client: Client) -> None:
    site.nodes(1)
    space, here = site.name, site.here()
    second = {"metadata": {"name": "two-more", "namespace": space}}
    away = {"nodeSelector": {"site": "nowhere"}}
    site.deploy(
        workloads.deployment("free", 1, space, **here),
        workloads.deployment("tight", 2, space, **here),
        workloads.budget("tight", space, maxUnavailable=0),
        workloads.deployment("two", 1, space, **here),
        workloads.budget("two", space, maxUnavailable=1),
    )
    site.plane.apply(
        workloads.budget("two", space, maxUnavailable=1) | second,
        workloads.deployment("ill", 1, space, **NEVER, **here),
        workloads.budget("ill", space, minAvailable=1),
        workloads.deployment("ill-may-go", 1, space, **NEVER, **here),
        workloads.budget("ill-may-go", space, minAvailable=1, unhealthyPodEvictionPolicy="AlwaysAllow"),
        workloads.deployment("pending", 1, space, **away),
        workloads.budget("pending", space, minAvailable=1),
        workloads.job("done", space, **here),
        workloads.budget("done", space, minAvailable=1),
    )
    refused, accepted = EvictionOutcome.REFUSED, EvictionOutcome.ACCEPTED
    expected = {
        "free": (accepted, None, True),
        "tight": (refused, BlockerClass.BUDGET_EXHAUSTED, False),
        "two": (refused, BlockerClass.SEVERAL_BUDGETS, None),
        "ill": (refused, BlockerClass.BUDGET_EXHAUSTED, False),
        "ill-may-go": (accepted, None, True),
        "pending": (accepted, None, True),
        "done": (accepted, None, True),
    }
    states = {"ill": "Running", "ill-may-go": "Running", "done": "Succeeded", "pending": "Pending"}

    def settled() -> dict[str, dict[str, Any]]:
        found = {p["metadata"]["labels"]["app"]: p for p in site.observer.pods(space)}
        there = found.keys() == expected.keys() and all(found[a]["status"]["phase"] == s for a, s in states.items())
        seen = all(b.get("status", {}).get("observedGeneration") for b in site.plane.get("pdb", "-n", space)["items"])
        return found if there and seen else {}

    found = until(settled, "all pods and budgets to be as they will be")
    for app, raw in found.items():
        answer = await ask(client, space, raw["metadata"]["name"], raw["metadata"]["uid"])
        assert (answer.outcome, answer.blocker_class, foreseen(site, space, raw)) == expected[app], (app, answer)
    tight = found["tight"]["metadata"]
    assert "needs 2 healthy pods and has 2 currently" in (await ask(client, space, tight["name"], tight["uid"])).message
    free = found["free"]["metadata"]["name"]
    assert (await ask(client, space, free, "another")).outcome is EvictionOutcome.GONE
    assert (await ask(client, space, "nobody", "another")).outcome is EvictionOutcome.GONE
    assert site.uids() >= {raw["metadata"]["uid"] for raw in found.values()}


async def test_a_budget_with_an_empty_selector_covers_what_the_server_says_it_does(site: Site, client: Client) -> None:
    site.nodes(1)
    budget = workloads.budget("all", site.name, maxUnavailable=0)
    budget["spec"]["selector"] = {}
    site.deploy(workloads.deployment("web", 1, site.name, **site.here()))
    site.plane.apply(budget)
    until(
        lambda: site.plane.get("pdb", "all", "-n", site.name).get("status", {}).get("expectedPods"),
        "the budget to be seen",
    )
    (raw,) = site.observer.pods(site.name)
    answer = await ask(client, site.name, raw["metadata"]["name"], raw["metadata"]["uid"])
    assert foreseen(site, site.name, raw) is (answer.outcome is EvictionOutcome.ACCEPTED)
    assert answer.blocker_class is BlockerClass.BUDGET_EXHAUSTED


async def test_what_the_disruption_controller_has_not_seen_and_what_is_being_deleted(
    site: Site, client: Client
) -> None:
    """The namespace controller waits 5 s: until then its pods are not Terminating, and evictions are refused."""
    site.nodes(1)
    site.deploy(workloads.deployment("web", 2, site.name, **site.here()))
    (raw, _) = site.observer.pods(site.name)
    name, uid = raw["metadata"]["name"], raw["metadata"]["uid"]
    with site.plane.paused("kube-controller-manager"):
        site.plane.apply(workloads.budget("web", site.name, maxUnavailable=1))
        unseen = await ask(client, site.name, name, uid)
        assert (unseen.outcome, unseen.blocker_class) == (EvictionOutcome.RETRY, BlockerClass.BUDGET_NOT_OBSERVED)
        assert unseen.retry_after >= 10
        going = {f"p{index}": "2026-01-01T00:00:00Z" for index in range(2001)}
        status = json.dumps({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "disruptedPods": going}})
        site.plane.kubectl("patch", "pdb", "web", "-n", site.name, "--subresource=status", "--type=merge", "-p", status)
        odd = await ask(client, site.name, name, uid)
        assert (odd.outcome, odd.blocker_class) == (EvictionOutcome.REFUSED, BlockerClass.BUDGET_NOT_OBSERVED)
        site.plane.kubectl("delete", "namespace", site.name, "--wait=false")
        ends = await ask(client, site.name, name, uid)
        assert (ends.outcome, ends.blocker_class) == (EvictionOutcome.REFUSED, BlockerClass.NAMESPACE_TERMINATING)


async def test_a_budget_that_cannot_be_synced_is_quoted_and_not_said_to_be_behind(site: Site, client: Client) -> None:
    """The pod's controller has a kind without scale; the server answers "still being processed" forever."""
    (node,) = site.nodes(1)
    site.plane.kubectl("create", "configmap", "vm", "-n", site.name)
    owner = site.plane.get("configmap", "vm", "-n", site.name)["metadata"]
    pod = workloads.bare_pod("vm", site.name, nodeName=node)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "vm", "uid": owner["uid"], "controller": True}
    pod["metadata"]["ownerReferences"] = [reference]
    site.plane.apply(pod, workloads.budget("vm", site.name, maxUnavailable=1))

    def failed() -> disruption_budgets.DisruptionBudget | None:
        found = disruption_budgets.parse_budget(site.plane.get("pdb", "vm", "-n", site.name))
        running = [p for p in site.observer.pods(site.name) if p["status"]["phase"] == "Running"]
        return found if found.sync_error and running else None

    budget = until(failed, "the sync to fail")
    (raw,) = site.observer.pods(site.name)
    answer = await ask(client, site.name, "vm", raw["metadata"]["uid"], budget)
    assert (answer.outcome, answer.blocker_class) == (EvictionOutcome.REFUSED, BlockerClass.BUDGET_MISCONFIGURED)
    assert "does not implement the scale subresource" in answer.message
    assert "use an integer minAvailable" in answer.hint
    assert foreseen(site, site.name, raw) is False


async def test_the_operator_may_write_nothing_in_a_pods_status_but_the_mark_of_a_disruption(
    site: Site, client: Client
) -> None:
    (node,) = site.nodes(1)
    site.plane.apply(workloads.bare_pod("one", site.name, nodeName=node))
    until(lambda: [p for p in site.observer.pods(site.name) if p["status"]["phase"] == "Running"], "the pod to run")
    path = f"/api/v1/namespaces/{site.name}/pods/one/status?dryRun=All"
    await client.patch(
        path, {"status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}}, kind=STRATEGIC_PATCH
    )
    for patch, refused in (
        ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, "set no pod condition"),
        ({"status": {"conditions": [{"type": "Ready", "$patch": "delete"}]}}, "set no pod condition"),
        ({"status": {"phase": "Failed"}}, "nothing in a pod's status"),
        ({"status": {"podIP": "1.2.3.4"}}, "nothing in a pod's status"),
        ({"metadata": {"labels": {"x": "y"}}}, "not change a pod's metadata"),
        ({"metadata": {"annotations": {"x": "y"}}}, "not change a pod's metadata"),
    ):
        with pytest.raises(ApiError, match=refused):
            await client.patch(path, patch, kind=STRATEGIC_PATCH)
