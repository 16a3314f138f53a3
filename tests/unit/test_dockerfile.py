"""Rules for the image that hold without building it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)


def test_each_image_of_others_is_pinned_by_its_digest() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert [image for image in images if image.startswith("${")] == ["${BUILD_BASE}", "${BASE}"]
    others = [image for image in images if not image.startswith("${")]
    assert others
    assert all(re.fullmatch(r"[a-z.]+/[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in others)


def test_the_defaults_of_the_bases_are_the_pinned_stages() -> None:
    stages = set(re.findall(r"^FROM \S+@\S+ AS (\w+)", DOCKERFILE, re.MULTILINE))
    assert set(re.findall(r"^ARG \w+=(\w+)", DOCKERFILE, re.MULTILINE)) == stages


def test_the_last_stage_needs_no_shell_and_runs_without_root() -> None:
    last = STAGES[-1]
    for instruction in ("RUN", "ENTRYPOINT", "CMD"):
        arguments = re.findall(rf"^{instruction} (.*)", last, re.MULTILINE)
        assert arguments
        assert all(argument.startswith("[") for argument in arguments), instruction
    assert re.findall(r"^USER (.*)", last, re.MULTILINE)[-1] == "65532:65532"


def test_each_copied_file_is_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for arguments in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in arguments.split()
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
