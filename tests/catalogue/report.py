"""The table of the catalogue, for the docs."""

from collections.abc import Iterable, Mapping

from catalogue.comparison import REPLACEMENT_TIMEOUT, SLACK, Result, Verdict
from catalogue.entries import Entry, Way

Row = tuple[Entry, Mapping[Way, Result], Verdict]

_HEAD = f"""# Catalogue of clusters

Each entry is one kind of cluster. Its node is drained in three ways on the same control plane:
`{"kubectl drain --ignore-daemonsets --delete-emptydir-data --force"}`, Rescheduler with its defaults, and Rescheduler
with `replacement: Never`. Rescheduler must be at least as good in each column. `make catalogue` runs all entries and
writes this page. The files are in `tests/catalogue/entries`. `make catalogue PEER=<folder>` runs each entry in a fourth
way, with another tool such as soft-drain, and prints the results. The folder has a program `drain`, which gets names of
nodes and ends with 0 when they are drained, and may have a program `controller`, which runs all the time.

The nodes are simulated, and the control plane is real. Several entries run side by side, so that seconds depend on
the machine. For the catalogue, `replacementTimeout` is {REPLACEMENT_TIMEOUT} s instead of 5 minutes.

| column | meaning | Rescheduler must |
|---|---|---|
| finished | The tool reported the end, and the node has no pod that must leave. A way has a time limit. | finish if `kubectl drain` does |
| seconds | Time from the request to the report. Rescheduler waits some seconds after the cordon for pods that were bound before it. | need at most {SLACK} s more: three times `replacementTimeout` |
| least Ready | For each owner the lowest number of Ready pods at any revision, of those at the start. | have at least as many, for each owner that `kubectl drain` moved |
| past a budget | Ready pods that anybody deleted although a PodDisruptionBudget required them. | have no more |
| ran twice | Pods that ran next to their replacement although they must not. A Terminating pod does not count. | have no more |
| reported | Blockers or errors at the end. | name each pod that is left, if it does not finish |

An entry can also require an outcome: a number of Ready pods, or the class of a [blocker](blockers.md).

Two results are worse than those of `kubectl drain` on purpose. With `noRoom: Hold` a pod without room elsewhere
stays. The last Ready pod of an owner stays if its replacement cannot start. Rules and defaults that hold a pod are
marked in the entry too.
"""


def page(rows: Iterable[Row]) -> str:
    """Return the page, as Markdown."""
    found = sorted(rows, key=lambda row: row[0].name)
    held = sum(not verdict.failures for _, _, verdict in found)
    parts = [_HEAD, "## Results", "", f"{held} of {len(found)} entries hold.", ""]
    ways = list(found[0][1]) if found else []
    parts += [f"| entry | {' | '.join(way.heading for way in ways)} | result |", "|---|" + "---|" * (len(ways) + 1)]
    for entry, results, verdict in found:
        ends = " | ".join(_end(results[way]) for way in ways)
        parts.append(f"| [{entry.title}](#{_anchor(entry.title)}) | {ends} | {verdict.word} |")
    for entry, results, verdict in found:
        parts += ["", *_details(entry, results, verdict)]
    return "\n".join(parts) + "\n"


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _end(result: Result) -> str:
    return f"{result.seconds:.1f} s" if result.finished else "not finished"


def _details(entry: Entry, results: Mapping[Way, Result], verdict: Verdict) -> list[str]:
    head = "| way | finished | seconds | least Ready | past a budget | ran twice | reported |"
    lines = [f"## {entry.title}", "", entry.about, "", head, "|---|---|---|---|---|---|---|"]
    lines += [_line(way, result) for way, result in results.items()]
    notes = [f"- **Fails**: {_escaped(str(finding))}." for finding in verdict.failures]
    if entry.known:
        notes.append(f"- Known: {entry.known}")
    notes += [f"- Exception: {why}" for why in entry.intended.values()]
    return lines + (["", *dict.fromkeys(notes)] if notes else [])


def _line(way: Way, result: Result) -> str:
    least = ", ".join(f"{owner} {count}/{result.start[owner]}" for owner, count in result.least.items()) or "none"
    cells = [
        way.heading,
        "yes" if result.finished else "no",
        f"{result.seconds:.1f}",
        least,
        str(result.past_budget),
        str(result.twice),
        "; ".join(f"`{_escaped(words)}`" for words in result.reported) or _classes(result),
    ]
    return f"| {' | '.join(cells)} |"


def _classes(result: Result) -> str:
    """Return the classes of blockers that went away before the end."""
    found = sorted({each for classes in result.classes.values() for each in classes})
    return f"{', '.join(found)}, for a while" if found else "none"


def _escaped(words: str) -> str:
    return words.replace("|", "/").replace("\n", " ")
