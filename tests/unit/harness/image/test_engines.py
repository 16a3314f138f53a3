"""Which container engine builds the image."""

from pathlib import Path

import pytest

from harness.image import engines


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the only one in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def put(programs: Path, name: str, *, works: bool) -> None:
    """Put a program there that writes its arguments to a file of its name, and works or fails."""
    text = f'#!/bin/sh\necho "$@" >> {programs}/{name}.log\nexit {int(not works)}\n'
    (programs / name).write_text(text)
    (programs / name).chmod(0o755)


def test_a_client_without_its_service_is_passed_over(programs: Path) -> None:
    put(programs, "docker", works=False)
    put(programs, "buildah", works=True)
    assert engines.working_engine() == "buildah"


def test_docker_comes_first_and_podman_second(programs: Path) -> None:
    put(programs, "buildah", works=True)
    put(programs, "podman", works=True)
    assert engines.working_engine() == "podman"
    put(programs, "docker", works=True)
    assert engines.working_engine() == "docker"


def test_without_an_engine_the_message_names_all_three(programs: Path) -> None:
    with pytest.raises(engines.NoEngineError, match="docker, podman, buildah"):
        engines.working_engine()


def test_a_build_passes_its_bases_as_arguments(programs: Path) -> None:
    put(programs, "podman", works=True)
    engines.build("podman", "name:1", programs, "--target=build", arguments={"BASE": "local"})
    logged = (programs / "podman.log").read_text()
    assert logged == f"build --build-arg BASE=local --target=build --tag name:1 {programs}\n"


@pytest.mark.parametrize(
    ("engine", "command"),
    [("docker", "save --output"), ("podman", "save --output"), ("buildah", "push --quiet name:1")],
)
def test_a_saved_image_replaces_the_archive(programs: Path, engine: str, command: str) -> None:
    put(programs, engine, works=True)
    archive = programs / "image.tar"
    archive.touch()
    engines.save(engine, "name:1", archive)
    assert not archive.exists()  # buildah would add to it
    assert (programs / f"{engine}.log").read_text().startswith(command)
