"""Another drain tool as the fourth way of the catalogue."""

from pathlib import Path

import pytest

from catalogue.peer import Peer


def peer(folder: Path, **programs: str) -> Peer:
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return Peer(folder, folder / "kubeconfig")


def test_a_drain_gets_the_nodes_and_the_cluster(tmp_path: Path) -> None:
    found = peer(tmp_path, drain='echo "$@ $KUBECONFIG" > "$0.args"').drain(["n1", "n2"], 10)
    assert found == (True, ())
    assert (tmp_path / "drain.args").read_text() == f"n1 n2 {tmp_path}/kubeconfig\n"


def test_a_failed_drain_has_the_last_errors(tmp_path: Path) -> None:
    script = "for word in a b c d; do echo $word >&2; done; exit 3"
    assert peer(tmp_path, drain=script).drain(["n1"], 10) == (False, ("b", "c", "d"))


def test_a_drain_is_stopped_at_the_limit(tmp_path: Path) -> None:
    assert peer(tmp_path, drain="exec sleep 60").drain(["n1"], 0.2) == (False, ())


def test_the_controller_runs_until_the_end(tmp_path: Path) -> None:
    script = 'trap "echo ended > $0.end; exit 0" TERM; touch $0.begun; while :; do sleep 0.05; done'
    tool = peer(tmp_path, controller=script, drain="while [ ! -e ${0%drain}controller.begun ]; do sleep 0.05; done")
    with tool.running():
        assert tool.drain([], 10) == (True, ())
        assert not (tmp_path / "controller.end").exists()
    assert (tmp_path / "controller.end").read_text() == "ended\n"


def test_a_controller_that_ends_by_itself_is_an_error(tmp_path: Path) -> None:
    tool = peer(tmp_path, controller="exit 4", drain="sleep 0.3")
    with pytest.raises(ChildProcessError, match="ended with 4"), tool.running():
        tool.drain(["n1"], 10)


def test_a_tool_may_have_no_controller(tmp_path: Path) -> None:
    with peer(tmp_path, drain="exit 0").running():
        assert (tmp_path / "drain").exists()
