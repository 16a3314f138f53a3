"""The text and the JSON of a plan."""

from rescheduler.cli import plan
from rescheduler.core.drain.preview import DrainPreview, PendingPod


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
