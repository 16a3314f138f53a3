"""The static admission policies of pools on a real API server, without an operator: tests set labels and taints."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.pools import EVERYTHING, Cluster, asking, identity, mirror, owned, pod, pool, tolerating
from harness import ControlPlane, workloads
from harness.operators import CHART, NAMESPACE, ROOT, helm, install
from harness.waiting import until
from rescheduler.api import names
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.model.raw import RawObject

SERVED = ("--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Yield a cluster with the pools red (by name), blue (by label) and grey (Audit), and a node of each."""
    with ControlPlane.start() as plane:
        install(plane)
        values = ("--set", "pools.exemptNamespaces={tools}", "-s", "templates/pool-tolerations.yaml")
        rendered = helm("template", "rescheduler", str(CHART), "-n", NAMESPACE, *SERVED, *values)
        plane.apply(*yaml.safe_load_all(rendered.stdout))
        plane.apply(
            pool("red", namespaces=["red", "red-db", "kube-system", NAMESPACE]),
            pool("blue", namespaceSelector={"matchLabels": {"team": "blue"}}),
            pool("grey", namespaces=["grey"], mode="Audit"),
        )
        for colour in ("red", "blue"):
            taint = {"key": names.POOL, "value": colour, "effect": "NoSchedule"}
            plane.add_nodes(1, prefix=colour, labels={names.NODE_POOL: colour}, taints=[taint])
        plane.add_nodes(1, prefix="grey")
        made = Cluster(plane)
        probes = workloads.namespace("red-db"), workloads.namespace("b", team="blue")

        def known() -> bool:
            return all(names.POOL in probe["metadata"]["labels"] for probe in made.admitted(*probes))

        until(known, "pools to be known")
        made.make(*(workloads.namespace(space) for space in ("red", "out", "tools")))
        made.make(workloads.namespace("blue", team="blue"))
        made.have_accounts("red", "blue", "out", "tools", NAMESPACE)
        plane.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
        until(lambda: _in_force(made), "the policies to be in force")
        yield made


def _in_force(cluster: Cluster) -> bool:
    """Whether the API server applies all objects of the fixtures; new policies take a second."""
    said = cluster.create(
        pod("known", "out", tolerations=[EVERYTHING]),
        pod("bound", "out", tolerations=[tolerating("red")]),
        pod("exempt", "tools", tolerations=[EVERYTHING]),
        pod("changed", "red", nodeName="red1"),
        pod("inside", "red"),
    )
    return said.count("forbidden") == 3 and all(f"pod/{name} created" in said for name in ("exempt", "inside"))


@pytest.fixture(scope="module")
def tenant(cluster: Cluster) -> Path:
    """Return users that may not write records of others; the operator may, because kubectl reads before its patches."""
    found = identity(cluster, "tenant")
    account = f"--serviceaccount={NAMESPACE}:rescheduler"
    cluster.kubectl("create", "clusterrolebinding", "all", "--clusterrole=tenant", account)
    operator = cluster.plane.identity_kubeconfig(NAMESPACE, "rescheduler")
    may = ["auth", "can-i", "get", "pods", "-n", "red"]
    until(lambda: "yes" in cluster.kubectl(*may, check=False, kubeconfig=operator), "the operator to have its rights")
    return found


# -- the chart ------------------------------------------------------------------------------------------


def test_where_mutating_policies_are_not_served_the_chart_has_none_for_pools() -> None:
    without, having = (
        helm("template", "rescheduler", str(CHART), "-n", NAMESPACE, *more).stdout for more in ((), SERVED)
    )
    names = [d["metadata"]["name"] for d in yaml.safe_load_all(without) if d and "Admission" in d["kind"]]
    assert names
    assert not [name for name in names if "-pool-" in name]
    assert having.count("kind: MutatingAdmissionPolicy\n") == 2


@pytest.mark.every_version("pools", since="1.36")
def test_type_checking_finds_nothing(cluster: Cluster) -> None:
    def checked() -> list[RawObject]:
        policies = cluster.plane.get("validatingadmissionpolicies")["items"]
        mine = [p for p in policies if "-pool-" in p["metadata"]["name"]]
        done = all(
            p.get("status", {}).get("observedGeneration") == p["metadata"]["generation"]
            and "typeChecking" in p["status"]
            for p in mine
        )
        return mine if done else []

    for policy in until(checked, "all policies to be type checked"):
        assert not policy["status"]["typeChecking"].get("expressionWarnings"), policy["metadata"]["name"]


# -- namespaces ------------------------------------------------------------------------------------------------------


@pytest.mark.every_version("pools", since="1.36")
def test_a_pool_a_namespace_and_its_pod_made_in_one_request_fit(cluster: Cluster) -> None:
    def first_pod(attempt: int) -> RawObject:
        name = f"fresh{attempt}"
        cluster.make(pool(name, namespaces=[name]), *used_at_once(name))
        return dict(cluster.plane.get("pod", "p", "-n", name))

    # The API server watches pools; on a busy machine the namespace may be faster.
    made: list[RawObject] = []
    right: list[RawObject] = []
    while len(right) < 2 and len(made) < 6:
        made.append(first_pod(len(made)))
        right = [p for p in made if p["spec"].get("nodeSelector") == {names.NODE_POOL: p["metadata"]["namespace"]}]
    assert len(right) == 2
    cluster.kubectl("delete", "nsp", *(p["metadata"]["namespace"] for p in made))


def used_at_once(space: str, **labels: str) -> tuple[RawObject, RawObject, RawObject]:
    """Create a namespace and a pod; with its own account it waits for no controller."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "own", "namespace": space}}
    return workloads.namespace(space, **labels), account, pod("p", space, serviceAccountName="own")


def test_a_namespace_that_is_used_in_the_moment_of_its_creation_is_right_from_its_first_pod(cluster: Cluster) -> None:
    spaces = [f"blue-{number}" for number in range(10)]
    made = [each for space in spaces for each in used_at_once(space, team="blue")]
    cluster.make(*made)
    for space in spaces:
        first = cluster.plane.get("pod", "p", "-n", space)
        assert first["metadata"]["labels"][names.POOL] == "blue"
        assert first["spec"]["nodeSelector"] == {names.NODE_POOL: "blue"}
        assert tolerating("blue") in first["spec"]["tolerations"]
    cluster.kubectl("delete", "namespace", "--wait=false", *spaces)


def test_namespaces_are_claimed_by_name_and_by_label_and_what_they_bring_along_is_not_believed(
    cluster: Cluster,
) -> None:
    lying = {names.POOL: "red"}
    expected: dict[str, str | None] = {}
    bodies = []
    for name, labels, found in (
        ("red-db", {}, "red"),
        ("b", {"team": "blue"}, "blue"),
        ("red-db-2", {"team": "green"}, None),
        ("grey", {}, None),  # Audit claims no namespace
        ("liar", lying, None),
        ("grey-liar", {names.POOL: "grey"}, None),
        ("blue-liar", {"team": "blue", **lying}, "blue"),
    ):
        expected[name] = found
        bodies.append(workloads.namespace(name, **labels))
    unnamed = workloads.namespace("", team="blue")
    unnamed["metadata"]["generateName"] = "some-"
    made = cluster.admitted(*bodies, unnamed)
    assert {o["metadata"]["name"]: o["metadata"]["labels"].get(names.POOL) for o in made[:-1]} == expected
    assert made[-1]["metadata"]["labels"][names.POOL] == "blue"
    for space in ("kube-system", NAMESPACE):  # they exist already: only their pods can show it
        assert names.POOL not in cluster.plane.get("namespace", space)["metadata"]["labels"]


def test_the_policy_reads_selectors_as_the_operator_does(cluster: Cluster) -> None:
    """A pool of 5,000 names stays within the cost limit of an expression."""
    selectors: list[RawObject] = [
        {"matchExpressions": [{"key": "k", "operator": operator, **({"values": values} if values else {})}]}
        for operator, values in (("In", ["a", "b"]), ("NotIn", ["a", "b"]), ("Exists", None), ("DoesNotExist", None))
    ]
    selectors += [{"matchLabels": {"k": ""}}, {"matchLabels": {"k": "a", "l": "b"}}]
    # Neither the server nor the policy reads the operator's own label.
    selectors += [{"matchExpressions": [{"key": names.POOL, "operator": "DoesNotExist"}]}]
    pools, spaces, expected = [], [], {}
    for number, selector in enumerate(selectors):
        case = {"matchLabels": {**selector.get("matchLabels", {}), "case": str(number)}}
        pools.append(pool(f"selector{number}", namespaceSelector={**selector, **case}))
        for index, labels in enumerate(({}, {"k": ""}, {"k": "a"}, {"k": "c"}, {"k": "a", "l": "b"})):
            name, having = f"s{number}-{index}", {"case": str(number), **labels}
            spaces.append(workloads.namespace(name, **{names.POOL: "nobody", **having}))
            matches = LabelSelector.model_validate({**selector, **case}).matches(having)
            expected[name] = f"selector{number}" if matches else "nobody"
    pools.append(pool("vast", namespaces=[f"vast-{number}" for number in range(5000)]))
    spaces.append(workloads.namespace("vast-4999"))
    expected["vast-4999"] = "vast"
    cluster.make(*pools)
    until(lambda: names.POOL in cluster.admitted(spaces[-1])[0]["metadata"]["labels"], "the pools to be known")
    found = {o["metadata"]["name"]: o["metadata"]["labels"].get(names.POOL) for o in cluster.admitted(*spaces)}
    cluster.kubectl("delete", "nsp", *(p["metadata"]["name"] for p in pools))
    assert found == expected


def test_a_namespace_that_two_pools_claim_goes_to_one_of_them(cluster: Cluster) -> None:
    """The chosen pool is random, and the operator corrects it; the namespace is never refused, and its pods fit the
    pool.
    """
    (made,) = cluster.admitted(workloads.namespace("red-db", team="blue"))
    assert made["metadata"]["labels"][names.POOL] in ("red", "blue")


def test_only_who_may_change_the_pools_changes_the_label_of_a_namespace(cluster: Cluster, tenant: Path) -> None:
    owner = identity(cluster, "owner", pools="red")
    operator = cluster.plane.identity_kubeconfig(NAMESPACE, "rescheduler")

    def relabel(space: str, value: str | None, who: Path, *more: str) -> str:
        return cluster.patch("namespace", space, {"metadata": {"labels": {names.POOL: value}}}, *more, kubeconfig=who)

    refusal = relabel("red", "blue", tenant)
    assert "only a user who may update NamespacePool red and blue may change it" in refusal
    assert "spec.namespaces of its NamespacePool" in refusal
    assert "forbidden" in relabel("red", None, tenant)
    assert "forbidden" in relabel("out", "red", tenant)
    assert "forbidden" in relabel("out", "red", tenant, "--subresource=status")
    finalize = cluster.plane.get("namespace", "out")
    finalize["metadata"]["labels"][names.POOL] = "red"
    raw = ["replace", "--raw", "/api/v1/namespaces/out/finalize?dryRun=All", "-f", "-"]
    assert "only a user who may" in cluster.kubectl(*raw, input=json.dumps(finalize), check=False, kubeconfig=tenant)
    assert "patched" in cluster.patch("namespace", "red", {"metadata": {"labels": {"a": "b"}}}, kubeconfig=tenant)
    assert "patched" in relabel("out", "red", owner)
    assert "patched" in relabel("red", None, owner)
    assert "forbidden" in relabel("red", "blue", owner)
    assert "patched" in relabel("red", "blue", operator)
    assert "patched" in relabel("red", "blue", cluster.plane.kubeconfig)


# -- nodes -----------------------------------------------------------------------------------------------------------


def test_only_who_may_change_the_pools_changes_label_and_taint_of_a_node(cluster: Cluster, tenant: Path) -> None:
    owner = identity(cluster, "node-owner", pools="red")

    def taints(*values: str) -> dict[str, Any]:
        return {"spec": {"taints": [{"key": names.POOL, "value": v, "effect": "NoSchedule"} for v in values]}}

    def label(value: str | None) -> dict[str, Any]:
        return {"metadata": {"labels": {names.NODE_POOL: value}}}

    refusal = cluster.patch("node", "red1", label("blue"), kubeconfig=tenant)
    assert "only a user who may update NamespacePool red and blue may change them" in refusal
    for node, body in (
        ("red1", label(None)),
        ("grey1", label("red")),
        ("red1", taints()),
        ("red1", taints("blue")),
        ("grey1", taints("")),
    ):
        assert "forbidden" in cluster.patch("node", node, body, kubeconfig=tenant), body
    assert "forbidden" in cluster.patch("node", "grey1", label("red"), "--subresource=status", kubeconfig=tenant)
    for body in ({"metadata": {"labels": {"a": "b"}}}, {"spec": {"unschedulable": True}}):
        assert "patched" in cluster.patch("node", "red1", body, kubeconfig=tenant)
    assert "patched" in cluster.patch("node", "red1", label(None) | taints(), kubeconfig=owner)
    assert "forbidden" in cluster.patch("node", "red1", label("blue") | taints("blue"), kubeconfig=owner)
    whole = label("blue") | taints("blue")
    assert "patched" in cluster.patch("node", "red1", whole, kubeconfig=cluster.plane.kubeconfig)


# -- pods ------------------------------------------------------------------------------------------------------------


@pytest.mark.every_version("pools", since="1.36")
def test_pods_of_every_controller_land_in_their_pool_and_nowhere_else(cluster: Cluster) -> None:
    """Taint and labels are set, without an operator; DaemonSets run on nodes whose taints they tolerate."""
    cluster.plane.apply(
        workloads.deployment("web", 2, "red", annotations={}),
        workloads.stateful_set("db", 2, "red"),
        workloads.job("once", "red", after="60s"),
        _cron_job("each", "red"),
        workloads.deployment("web", 2, "blue", nodeSelector={"kubernetes.io/os": "linux"}),
        workloads.deployment("web", 4, "out"),
        workloads.daemon_set("agent", "red", tolerations=[EVERYTHING]),
    )
    cluster.kubectl("create", "job", "-n", "red", "by-hand", "--from=cronjob/each")

    def placed(space: str, count: int) -> dict[str, str]:
        found = {p["metadata"]["name"]: p["spec"].get("nodeName", "") for p in cluster.observer.pods(space)}
        return found if len(found) >= count and all(found.values()) else {}

    agents = {name: node for name, node in until(lambda: placed("red", 9), "pods of red").items() if "agent" in name}
    assert sorted(agents.values()) == ["blue1", "grey1", "red1"]
    others = {node for name, node in placed("red", 9).items() if name not in agents}
    assert others == {"red1"}
    assert set(until(lambda: placed("blue", 2), "pods of blue").values()) == {"blue1"}
    assert set(until(lambda: placed("out", 4), "pods of no pool").values()) == {"grey1"}
    for made in cluster.observer.pods("red"):
        mine = made["metadata"]["name"] not in agents
        assert (made["metadata"]["labels"].get(names.POOL) == "red") is mine
        assert (names.NODE_POOL in made["spec"].get("nodeSelector", {})) is mine


def _cron_job(name: str, namespace: str) -> RawObject:
    spec = workloads.job(name, namespace, after="60s")["spec"]
    body = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": body,
    }


@pytest.fixture
def touching(cluster: Cluster) -> Iterator[None]:
    """Let another vendor's policy annotate pods: the pool's policy runs again after it."""
    patch = '[JSONPatch{op: "add", path: "/metadata/annotations", value: {"touched": "yes"}}]'
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [rule]},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }
    of = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "touching"}}
    cluster.plane.apply(
        {**of, "kind": "MutatingAdmissionPolicy", "spec": spec},
        {**of, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": "touching"}},
    )

    def in_force() -> bool:
        return "annotations" in cluster.admitted(pod("p", "out"))[0]["metadata"]

    until(in_force, "it to be in force")
    yield
    cluster.kubectl("delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", "touching")
    until(lambda: not in_force(), "it to be out of force")


@pytest.mark.usefixtures("touching")
def test_what_is_added_is_added_once(cluster: Cluster, tenant: Path) -> None:
    """Also if the pod brings the selector itself, and if the policies run again, for any creator of the pod."""
    brought = pod("q", "red", {names.POOL: "blue"}, tolerations=[tolerating("red")], nodeSelector={"a/b.c": "d"})
    for made in cluster.admitted(pod("p", "red"), brought, kubeconfig=tenant):
        assert made["metadata"]["labels"][names.POOL] == "red"
        assert made["spec"]["nodeSelector"][names.NODE_POOL] == "red"
        assert [t for t in made["spec"]["tolerations"] if t["key"] == names.POOL] == [tolerating("red")]
    assert made["spec"]["nodeSelector"]["a/b.c"] == "d"
    (plain,) = cluster.admitted(pod("r", "out", {names.POOL: "red"}))
    assert names.POOL not in plain["metadata"]["labels"]
    assert "nodeSelector" not in plain["spec"]
    assert not [t for t in plain["spec"]["tolerations"] if t["key"] == names.POOL]


REFUSED = [
    (pod("a", "red", nodeSelector={names.NODE_POOL: "blue"}), "is in pool red, but the pod asks for pool blue"),
    (pod("b", "red", affinity=asking("blue")), "is in pool red, but the pod asks for pool blue"),
    (pod("c", "red", nodeName="red1"), "is in pool red, and spec.nodeName bypasses the scheduler"),
    (pod("d", "red", tolerations=[tolerating("blue")]), "is in pool red, but the pod tolerates the nodes of pool blue"),
    (pod("e", "out", tolerations=[tolerating("red")]), "is in no pool, but the pod tolerates the nodes of pool red"),
    (pod("f", "out", tolerations=[{"key": names.POOL, **EVERYTHING}]), "tolerates the nodes of every pool"),
    (pod("g", "out", tolerations=[EVERYTHING]), "which is exclusive, and namespace out is not in it"),
    (pod("h", "out", tolerations=[{"effect": "NoSchedule", **EVERYTHING}]), "pools.exemptNamespaces"),
    # Only their controller creates pods of a DaemonSet.
    (owned(pod("i", "out", tolerations=[EVERYTHING]), "DaemonSet"), "which is exclusive"),
    (owned(pod("j", "red", nodeName="blue1"), "DaemonSet"), "spec.nodeName bypasses the scheduler"),
]


def test_what_would_leave_a_pool_or_enter_one_is_refused_with_a_way_out(cluster: Cluster, tenant: Path) -> None:
    said = cluster.create(*(body for body, _ in REFUSED), kubeconfig=tenant).splitlines()
    for body, words in REFUSED:
        (line,) = (line for line in said if f'pods "{body["metadata"]["name"]}" is forbidden' in line)
        assert words in line, line


def test_what_is_harmless_or_nobodys_business_is_let_in(cluster: Cluster) -> None:
    critical: RawObject = {"priorityClassName": "system-cluster-critical"}
    made = cluster.admitted(
        pod("a", "red", tolerations=[EVERYTHING]),  # the nodeSelector keeps it in
        pod("b", "red", affinity=asking("blue", "red")),
        pod("c", "out", tolerations=[{"effect": "NoExecute", **EVERYTHING}]),
        pod("d", "out", nodeName="grey1"),
        pod("e", "out", nodeSelector={names.NODE_POOL: "red"}),  # the taint keeps it off
        pod("f", "out", tolerations=[EVERYTHING], **critical),
        pod("g", "tools", tolerations=[EVERYTHING, tolerating("red")]),
    )
    assert "nodeSelector" not in made[5]["spec"]
    exempt = cluster.admitted(
        pod("h", "kube-system", tolerations=[EVERYTHING], nodeName="red1"),
        pod("i", NAMESPACE, tolerations=[EVERYTHING], nodeName="red1"),
        mirror(pod("j", "red")),
        # Created by their controllers: the administrator has their rights.
        owned(pod("k", "red", tolerations=[EVERYTHING], nodeName="blue1"), "DaemonSet"),
    )
    for untouched in exempt:
        assert names.POOL not in untouched["metadata"]["labels"]
        assert "nodeSelector" not in untouched["spec"]


def test_pools_that_others_speak_for_are_not_looked_at(cluster: Cluster) -> None:
    """The operator sets the label if there is an exclusive pool."""

    def refused() -> bool:
        return "is exclusive" in cluster.create(pod("p", "out", tolerations=[EVERYTHING]))

    cluster.kubectl("label", "nsp", "red", "blue", f"{names.ADMISSION_SKIP}=true")
    until(lambda: not refused(), "nobody to speak")
    cluster.kubectl("label", "nsp", "red", f"{names.ADMISSION_SKIP}-")
    until(refused, "one to speak")
    cluster.kubectl("label", "nsp", "blue", f"{names.ADMISSION_SKIP}-")


def test_selectors_that_admission_would_defeat_are_refused(cluster: Cluster) -> None:
    """Such a ReplicaSet does not recognize its own pods: it would create them without end."""
    body = workloads.deployment("runaway", 1, "out")
    for where in (body["spec"]["selector"]["matchLabels"], body["spec"]["template"]["metadata"]["labels"]):
        where[names.POOL] = "red"
    assert "pods would be created without end" in cluster.create(body)


# -- later -----------------------------------------------------------------------------------------------------------


def test_running_pods_get_no_further_by_updates_and_all_other_updates_pass(cluster: Cluster, tenant: Path) -> None:
    held: RawObject = {"schedulingGates": [{"name": "test/held"}]}
    old = pod("old", "red", **held)
    old["metadata"]["finalizers"] = ["test/held"]
    cluster.make(old, pod("plain", "out", **held))

    def tolerate(name: str, space: str, *more: RawObject) -> str:
        having = cluster.plane.get("pod", name, "-n", space)["spec"]["tolerations"]
        return cluster.patch("pod", name, {"spec": {"tolerations": [*having, *more]}}, "-n", space, kubeconfig=tenant)

    def label(name: str, space: str, value: str | None, *more: str) -> str:
        body = {"metadata": {"labels": {names.POOL: value}}}
        return cluster.patch("pod", name, body, "-n", space, *more, kubeconfig=tenant)

    assert "tolerates the nodes of pool red" in tolerate("plain", "out", tolerating("red"))
    assert "is exclusive" in tolerate("plain", "out", EVERYTHING)
    assert "tolerates the nodes of pool blue" in tolerate("old", "red", tolerating("blue"))
    assert "patched" in tolerate("old", "red", EVERYTHING)
    assert "patched" in tolerate("plain", "out", {"key": "a", **EVERYTHING})
    owner = {"ownerReferences": owned(pod("x", "out"), "DaemonSet")["metadata"]["ownerReferences"]}
    having = cluster.plane.get("pod", "plain", "-n", "out")["spec"]["tolerations"]
    adopted = {"metadata": owner, "spec": {"tolerations": [*having, EVERYTHING]}}
    assert "is exclusive" in cluster.patch("pod", "plain", adopted, "-n", "out", kubeconfig=tenant)
    assert "is set by admission, from its namespace red, which is in pool red" in label("old", "red", "blue")
    assert "forbidden" in label("old", "red", None)
    assert "forbidden" in label("plain", "out", "red")
    for name, space, value in (("old", "red", "blue"), ("plain", "out", "red")):
        assert "is set by admission" in label(name, space, value, "--subresource=status")

    cluster.kubectl("patch", "pod", "old", "-n", "red", "--subresource=ephemeralcontainers", "-p", _debugger())
    cluster.plane.kubectl("label", "namespace", "red", f"{names.POOL}=blue", "--overwrite")
    until(lambda: "patched" in label("old", "red", "blue"), "the namespace's new pool to be known")
    assert "patched" in cluster.patch("pod", "old", {"metadata": {"annotations": {"a": "b"}}}, "-n", "red")
    cluster.kubectl("delete", "pod", "old", "-n", "red", "--wait=false")
    cluster.kubectl("patch", "pod", "old", "-n", "red", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    cluster.plane.kubectl("label", "namespace", "red", f"{names.POOL}=red", "--overwrite")
    until(lambda: not cluster.kubectl("get", "pod", "old", "-n", "red", "--ignore-not-found"), "the pod to be gone")


def _debugger() -> str:
    return json.dumps({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "simulated"}]}})


def test_with_the_crds_taken_away_no_namespace_and_no_pod_outside_is_refused(cluster: Cluster) -> None:
    """The last test: pods in pools continue, because they need only the labels.

    The API server also learns of the policies if the CRDs are gone already.
    """
    documents: list[Any] = list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
    bindings = [d for d in documents if d["kind"].endswith("Binding") and "-pool-" in d["metadata"]["name"]]
    inside, bound = pod("inside", "red"), pod("bound", "out", tolerations=[tolerating("red")])

    def states() -> tuple[bool, bool]:
        said = cluster.create(pod("moved", "red", nodeSelector={names.NODE_POOL: "blue"}), bound)
        return "pod/moved created" in said, "pod/bound created" in said

    def in_force() -> bool:
        """The mutating and the validating policies take effect one by one."""
        return states() == (False, False) and "pod/inside created" in cluster.create(inside)

    def nothing_refused() -> bool:
        said = cluster.create(workloads.namespace("red-db"), pod("p", "out", tolerations=[EVERYTHING]))
        return said.count("created") == 2

    cluster.kubectl("delete", "crd", "namespacepools.rescheduler.dev")
    until(nothing_refused, "the pools to be gone")
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": bindings})
    cluster.kubectl("delete", "-f", "-", input=body)
    until(lambda: states() == (True, True), "the policies to be out of force")
    cluster.plane.apply(*bindings)
    until(in_force, "the policies to be in force again")
    assert nothing_refused()
    assert cluster.admitted(inside)[0]["spec"]["nodeSelector"] == {names.NODE_POOL: "red"}
