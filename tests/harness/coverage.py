"""Coverage of the operator by the tests, from the JSON report of slipcover."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Coverage:
    """Covered part of the lines and branches.

    Attributes:
        percent: covered lines and branches, 0 to 100.
        missing: number of lines and branches that no test reached, by file.
    """

    percent: float
    missing: dict[str, int]

    @classmethod
    def read(cls, report: Path) -> "Coverage":
        """Read a report that has lines and branches."""
        document = json.loads(report.read_text())
        return cls(
            document["summary"]["percent_covered"],
            {
                name: len(file["missing_lines"]) + len(file["missing_branches"])
                for name, file in document["files"].items()
            },
        )

    def worst(self, count: int) -> list[tuple[str, int]]:
        """Return the files that miss most, with the number of missing lines and branches."""
        return sorted(self.missing.items(), key=lambda row: (-row[1], row[0]))[:count]
