"""Check that every sentence of the project is plain English: `python -m harness.language [PATH…]`, a part of `make lint`.

Each rule is a pattern, and what to write instead. It reads strings, docstrings and comments of the code, the docs, the
chart and the CRDs. Code samples and identifiers are left out.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = (
    "operator/",
    "bench/",
    "manifests/",
    "tests/harness/",
    "tests/simulation/",
    "tests/invariants/",
    "tests/catalogue/",
)
PROSE = (".md", ".yaml", ".tpl", ".txt")

RULES: tuple[tuple[str, str], ...] = (
    (r"\banew\b", "again, or new"),
    (r"\b[Ww]hoever\b", "name the subject"),
    (r"\bseldom\b", "rarely"),
    (r"\bof late\b", "recently"),
    (r"\ball the same\b", "still, or anyway"),
    (r"\bfor so long\b|\bso long until\b|\bwaits so long\b", "for this long"),
    (r"\bbeside (?:the|a|an|it|them|each|its|that|those|what)\b", "next to, or in addition to"),
    (r"\b(?:is|are|was|were|be) told\b", "is reported, or gets notified"),
    (r"\b(?:is|are|was|were|be) said\b", "is reported"),
    (r"\btried on\b|\btries on\b", "retried"),
    (r"\blet go of\b|\blets go of\b|\bletting go of\b", "release"),
    (r"\bg(?:ive|ives|iven|iving) back\b", "return"),
    (r"\bput back as it was\b", "restored"),
    (r"\bmay go all the same\b", "may leave anyway"),
    (r"\bfor the sake of\b", "for"),
    (r"\bfor ever\b", "forever"),
    (r"\bas far as (?:is|was|they|it)\b", "name the limit"),
    (r"\bmend(?:s|ed|ing)?\b", "fix"),
    (r"\bwherever\b", "if, or name the place"),
    (r"\b(?:None|empty|Empty|zero|0|True|False) where\b", "if"),
    (r"\bwhere (?:not so|it (?:does|is|was) not|nothing|nobody|none|nobody)\b", "if"),
    (r"\bno more of\b|\bnot any more\b|\bany more\b", "no longer"),
    (r"\bfalls? silent\b|\bfell silent\b", "stops reporting"),
    (r"\b(?:has|have|had) it that\b", "say it plainly"),
    (r"\bthereby\b|\btherein\b|\bthereof\b|\bwhereby\b|\bhence\b|\bthence\b", "plain words"),
    (r"\bnor does\b|\bnor is\b|\bnor may\b", "a new sentence"),
    (r"\bto and fro\b", "back and forth"),
    (r"\bpeople's\b", "users'"),
    (r"\bbefore your eyes\b", "visibly"),
    (r"\bwithout words\b|\bin words\b|\bwith words\b", "with a message"),
    (r"\bof ours\b|\bof theirs\b|\bof its own\b(?= (?:will|accord))", "name the owner"),
    (
        r"\bhomeless\b|\berrands?\b|\btwins\b|\bspokesm[ae]n\b|\bstandoffs?\b|\bshun(?:ned|s)?\b",
        "the word of the glossary",
    ),
    (r"\bmisgiving\b|\bhearken\b|\bbefall(?:s|en)?\b|\bbehold\b", "plain words"),
)
_FIRST = re.compile(r"^(?:Who|Whoever|What|Whatever|Which|It|One|How|Why)\b")
"""A docstring begins with an imperative, `Return`, `Whether` or the noun itself."""
_CODE_SPAN = re.compile(r"``[^`]*``|`[^`\n]*`|\{\{.*?\}\}|https?://\S+")
_FENCE = re.compile(r"^\s*(```|~~~)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that breaks a rule."""

    path: str
    line: int
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}: {self.advice}"


def check(path: str, line: int, text: str) -> Iterator[Finding]:
    """Yield what breaks a rule in one piece of prose that begins at this line."""
    plain = _CODE_SPAN.sub(lambda found: "`" + " " * (len(found[0]) - 2) + "`", text)
    for pattern, advice in RULES:
        for found in re.finditer(pattern.replace(" ", r"\s+"), plain):
            yield Finding(path, line + plain.count("\n", 0, found.start()), found[0], advice)


def python(path: str, source: str) -> Iterator[Finding]:
    """Check the strings, docstrings and comments of a module."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = (ast.get_docstring(node) or "").split("\n")[0]
            if _FIRST.match(first):
                where = node.body[0].lineno
                yield Finding(
                    path, where, first[:60], "begin with an imperative, `Return`, `Whether` or the noun itself"
                )
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from check(path, node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from check(path, token.start[0], token.string)


def prose(path: str, source: str) -> Iterator[Finding]:
    """Check a document; fenced and indented code is left out."""
    lines, fenced = [], False
    for line in source.split("\n"):
        fence = bool(_FENCE.match(line))
        code = fenced or fence or (path.endswith(".md") and line.startswith("    "))
        lines.append("" if code else line)
        fenced ^= fence
    yield from check(path, 1, "\n".join(lines))


def main(prefixes: tuple[str, ...]) -> int:
    """Print each finding in files whose path begins so; return 1 if there is any."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    found: list[Finding] = []
    for path in listed:
        file = ROOT / path
        if path == "tests/harness/language.py" or not file.is_file() or not path.startswith(prefixes):
            continue
        if path.endswith(".py") and path.startswith(CODE):
            found += python(path, file.read_text())
        elif path.endswith(PROSE) and not path.startswith(("tests/", "requirements/")):
            found += prose(path, file.read_text())
    for each in sorted(set(found), key=lambda each: (each.path, each.line)):
        print(each)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or ("",)))
