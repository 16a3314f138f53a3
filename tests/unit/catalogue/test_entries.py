"""Files of the catalogue."""

import inspect
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalogue.entries import OWNER, Entry, load, names, runs_once, wanted
from catalogue.neighbours import EARLY, NEIGHBOURS


def owners(entry: Entry) -> set[str]:
    objects = entry.built([*entry.objects, *entry.then], "space")
    return {made["metadata"]["name"] for made in objects if wanted(made, 1)} | {
        each["owner"] for each in entry.neighbours if "owner" in each
    }


@pytest.mark.parametrize("name", names())
def test_an_entry_names_only_owners_and_neighbours_that_exist(name: str) -> None:
    entry = load(name)
    named = {*entry.outcome.least, *entry.outcome.reports, *entry.serve, *entry.once, *entry.stays}
    assert named <= owners(entry)
    for each in entry.neighbours:
        settings = {key.replace("-", "_") for key in each if key != "name"}
        inspect.signature(NEIGHBOURS[each["name"]]).bind("cluster", **dict.fromkeys(settings))


def test_titles_are_unique_because_the_table_links_to_them() -> None:
    titles = [load(name).title for name in names()]
    assert len(set(titles)) == len(titles) >= 60


def test_every_neighbour_is_in_use() -> None:
    used = {each["name"] for name in names() for each in load(name).neighbours}
    assert used == set(NEIGHBOURS)
    assert set(NEIGHBOURS) >= EARLY


def test_a_field_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("{title: x, about: x, neighbors: []}")
    with pytest.raises(ValidationError, match="neighbors"):
        Entry.load(file)


def test_pods_of_all_objects_are_marked_and_stay_on_the_nodes_of_their_cell(tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text("""
title: x
about: x
objects:
- deployment: {name: web, replicas: 3}
  merge: {spec: {template: {spec: {nodeSelector: {disk: ssd}}}}}
- bare_pod: {name: pet, nodeName: "${space}-n1"}
""")
    web, pet = Entry.load(file, "both-never").built(Entry.load(file, "both-never").objects, "both-never")
    template = web["spec"]["template"]
    assert template["metadata"]["labels"] == {"app": "web", OWNER: "web"}
    assert template["spec"]["nodeSelector"] == {"disk": "ssd", "site": "both-never"}
    assert (wanted(web, 9), runs_once(web)) == (3, False)
    assert pet["spec"]["nodeName"] == "both-never-n1"
    assert "nodeSelector" not in pet["spec"]
    assert (wanted(pet, 9), runs_once(pet)) == (1, True)
