"""The text and the JSON of a plan."""

from dataclasses import replace

from rescheduler.cli import plan
from rescheduler.core.drain.preview import Drainable, DrainPreview, PendingPod
from rescheduler.core.placement.chain_moves import ChainMove, ChainPlan
from rescheduler.core.placement.planner import Fit, Forecast


def test_pods_whose_new_pods_find_no_place_are_listed_with_their_hint_and_count_as_waiting() -> None:
    pending = (PendingPod("s/a", "0 of 1 other nodes", "relax the constraint"), PendingPod("s/b", "no room"))
    found = DrainPreview("n1", placed=0, staying=0, pending=pending)
    previews = [("default", found), ("", DrainPreview("n2", placed=0, staying=0))]
    assert plan._table(previews)[1] == ("n1", "yes", "0", "0", "0", "0", "2", "0", "0s")
    assert [row[-1] for row in plan._wide_table(previews)] == ["POLICY", "default", "<none>"]
    text = plan._format_all(previews)
    title = next(number for number, line in enumerate(text) if "Pods whose new pods find no place (2)" in line)
    assert [line.split() for line in text[title + 1 : title + 4]] == [
        ["s/a", "0", "of", "1", "other", "nodes", "n1"],
        ["relax", "the", "constraint"],
        ["s/b", "no", "room", "n1"],
    ]
    assert plan._json("", found)["newPodsPending"] == [
        {"pod": "s/a", "reason": "0 of 1 other nodes", "hint": "relax the constraint"},
        {"pod": "s/b", "reason": "no room", "hint": ""},
    ]


def test_pod_that_would_fit_after_a_move_of_another_pod_has_a_hint() -> None:
    move = ChainMove("shop/api-1", "u", "n7", for_pod="s/a", for_uid="a", for_node="n1")
    unplaced = (
        ("s/a", Forecast(Fit.DOES_NOT_FIT, reason="0 of 1 other nodes")),
        ("s/b", Forecast(Fit.DOES_NOT_FIT, reason="too large")),
    )
    found = DrainPreview("n1", 0, 0, unplaced, chain_plan=ChainPlan((move,), {"s/a": move}))
    text = plan._format_all([("default", found), ("default", DrainPreview("n2", placed=0, staying=0))])
    title = next(number for number, line in enumerate(text) if "Pods that fit on no other node (2)" in line)
    assert [" ".join(line.split()) for line in text[title + 1 : title + 4]] == [
        "s/a 0 of 1 other nodes",
        "would fit if shop/api-1 moved from n7; set drain.chainMoves to let the drain move it first",
        "s/b too large",
    ]
    rows = plan._json("", found)["chainMoves"]
    assert rows == [{"pod": "shop/api-1", "node": "n7", "makesRoomFor": ["s/a"], "byDrain": False}]
    assert found.drainable is Drainable.NO


def test_pod_that_the_drain_makes_room_for_does_not_keep_the_node_from_being_drained() -> None:
    move = ChainMove("shop/api-1", "u", "n7", for_pod="s/a", for_uid="a", for_node="n1")
    unplaced = (("s/a", Forecast(Fit.DOES_NOT_FIT, reason="full")),)
    found = DrainPreview("n1", 0, 0, unplaced, chain_plan=ChainPlan((move,), {"s/a": move}, True), max_chain_moves=1)
    assert found.drainable is Drainable.YES
    assert "fits once shop/api-1 has moved from n7; the drain moves it first" in "\n".join(plan._details(found))
    assert plan._json("", found)["chainMoves"][0]["byDrain"] is True
    assert replace(found, chain_plan=ChainPlan((move,), {"s/a": move})).drainable is Drainable.UNSURE
    assert replace(found, max_chain_moves=0).drainable is Drainable.NO
