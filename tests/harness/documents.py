"""The pages of the repository as tests read them: headings, links and blocks of code."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SHELLS = ("bash", "console", "sh", "shell")
_PROGRAM = re.compile(
    r"(?:[A-Za-z_]+=\S* *)*(?:chmod|cosign|curl|docker|gh|helm|jq|kind|kubectl|make|pip|python3?|rescheduler|source|ssh)\b|\w+="
)
"""How a block without a language begins that has commands."""
_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")
_HEADING = re.compile(r"^#{1,6} (.+)$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_INLINE_CODE = re.compile(r"``[^`]+``|`[^`]*`")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code of a page. `language` is empty if the block is indented or names none."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class Document:
    """A page, with its blocks of code apart from its prose."""

    page: str
    prose: tuple[str, ...]
    blocks: tuple[Block, ...]

    @property
    def anchors(self) -> set[str]:
        """Return the anchors of its headings, as GitHub and the site make them."""
        found: set[str] = set()
        for line in self.prose:
            if heading := _HEADING.match(line):
                text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", heading[1]).lower()
                anchor = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
                found.add(anchor if anchor not in found else f"{anchor}-1")
        return found

    @property
    def links(self) -> list[str]:
        """Return the targets of its links and pictures."""
        return _LINK.findall(_INLINE_CODE.sub("", "\n".join(self.prose)))


def read(page: str) -> Document:
    """Return the parts of a page of the repository."""
    prose: list[str] = []
    blocks: list[Block] = []
    fence: tuple[int, str, str, list[str]] | None = None
    lines = (ROOT / page).read_text().split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        found = _FENCE.match(line)
        if fence is not None:
            if found:
                blocks.append(Block(page, fence[0], fence[2], tuple(fence[3])))
                fence = None
            else:
                fence[3].append(line.removeprefix(fence[1]))
        elif found:
            fence = (number + 1, found[1], found[2], [])
        elif line.startswith("    ") and not (number and lines[number - 1].strip()):
            end = number + len(list(_indented(lines[number:])))
            code = [each[4:] for each in lines[number:end]]
            blocks.append(Block(page, number + 1, "", tuple(code)))
            number = end
            continue
        else:
            prose.append(line)
        number += 1
    return Document(page, tuple(prose), tuple(blocks))


def _indented(lines: list[str]) -> Iterator[str]:
    """Yield the lines of an indented block, without the empty lines at its end."""
    waiting: list[str] = []
    for line in lines:
        if line.startswith("    "):
            yield from (*waiting, line)
            waiting = []
        elif line.strip():
            return
        else:
            waiting.append(line)


def commands(block: Block) -> list[str]:
    """Return the commands of a block: of a session only what follows the prompt `$ `."""
    prompted = any(line.startswith("$ ") for line in block.lines)
    if not prompted and block.language not in SHELLS and not (block.language == "" and _is_script(block)):
        return []
    found: list[str] = []
    for line in block.lines:
        if found and _is_open(found[-1]):
            found[-1] += f"\n{line}"
        elif line.startswith("$ "):
            found.append(line.removeprefix("$ "))
        elif not prompted and line.startswith("{"):
            break  # the output of the last command
        elif not prompted and line.strip() and not line.startswith("#"):
            found.append(line.strip())
    return found


def objects(block: Block) -> list[Any]:
    """Return the YAML documents of a block that are mappings or lists; no document if the block is no YAML."""
    if block.language not in ("", "yaml"):
        return []
    try:
        found = list(yaml.safe_load_all(block.text))
    except yaml.YAMLError:
        return []
    return [each for each in found if isinstance(each, (dict, list))]


def _is_script(block: Block) -> bool:
    first = next((line for line in block.lines if line.strip() and not line.startswith("#")), "")
    return bool(_PROGRAM.match(first.strip()))


def _is_open(command: str) -> bool:
    """Whether the next line belongs to the command."""
    if command.rstrip().endswith(("\\", "&&", "|")):
        return True
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return False
