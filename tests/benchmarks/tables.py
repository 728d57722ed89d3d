"""Rewrite README's tables from results/*.json: `python -m tests.benchmarks.tables`. A test fails when they differ.

In README, a table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
from statistics import mean
from typing import Any

from tests.benchmarks.record import RESULTS, ROOT

README = ROOT / "README.md"


def cell(values: list[float]) -> str:
    """'61.2' for one seed, '61.2 (60.1 to 62.0)' for several; shares stay as they were written."""
    shown = f"{mean(values):.3g}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.3g} to {max(values):.3g})"


def table(result: dict[str, Any]) -> str:
    """One row per arm, one column per metric, and below it where the figures come from."""
    metrics = list(next(iter(result["arms"].values())))
    head = ["", *metrics]
    rows = [[arm, *(cell(values[m]) for m in metrics)] for arm, values in result["arms"].items()]
    lines = ["| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows]]
    seeds = f", seeds {', '.join(map(str, result['seeds']))}" if result["seeds"] else ""
    return "\n".join([*lines, "", f"`{result['command']}`{seeds}; {result['machine']}. {result['notes']}"])


def rewritten(text: str) -> str:
    def fill(match: "re.Match[str]") -> str:
        result = json.loads((RESULTS / f"{match[1]}.json").read_text())
        return f"<!-- table: {match[1]} -->\n{table(result)}\n<!-- end -->"
    return re.sub(r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->", fill, text, flags=re.S)


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
