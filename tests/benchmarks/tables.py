"""Rewrite README's tables from results/*.json: `python -m tests.benchmarks.tables`. A test fails when they differ.

In README, a table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
from statistics import mean, stdev
from typing import Any

from tests.benchmarks.record import RESULTS, ROOT

README = ROOT / "README.md"


def cell(values: list[float]) -> str:
    """'61.2' for one seed, '61.2 (60.1 to 62.0)' for several; shares stay as they were written."""
    shown = f"{mean(values):.3g}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.3g} to {max(values):.3g})"


def table(result: dict[str, Any]) -> str:
    """One row per arm, one column per metric, and below it where the figures come from."""
    metrics = list(dict.fromkeys(m for values in result["arms"].values() for m in values))
    head = ["", *metrics]
    rows = [[arm, *(cell(values[m]) if m in values else "" for m in metrics)] for arm, values in result["arms"].items()]
    return "\n".join([*markdown(head, rows), "", source(result)])


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows]]


def source(result: dict[str, Any]) -> str:
    """Where the figures come from."""
    seeds = f", seeds {', '.join(map(str, result['seeds']))}" if result["seeds"] else ""
    return f"`{result['command']}`{seeds}; {result['machine']}. {result['notes']}"


def distilled(result: dict[str, Any]) -> str:
    """One row per arm with its difference to `plain`; below, the arms compared with others than that."""
    arms, against = result["arms"], {(c["a"], c["b"]): c for c in result["comparisons"] if c["metric"] == "map50"}
    head = ["", "seeds", *DISTILLED.values(), "map50 against plain (95 %)"]
    rows = [[arm, str(len(told["map50"])), *(spread(told[m]) for m in DISTILLED), difference(against.get((arm, "plain")))]
            for arm, told in arms.items()]
    others = [f"- `{a}` against `{b}`, map50: {difference(c)}" for (a, b), c in against.items() if b != "plain"]
    return "\n".join([*markdown(head, rows), *(["", *others] if others else []), "", source(result)])


def spread(values: list[float]) -> str:
    """'0.612', or '0.612 ± 0.011': mean and standard deviation over seeds."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def difference(c: dict[str, Any] | None) -> str:
    """'+0.052 (+0.031 to +0.074)'; nothing where nothing was compared."""
    return f"{c['difference']:+.3f} ({c['low']:+.3f} to {c['high']:+.3f})" + (", 1 seed" if c["seeds"] == 1 else "") if c else ""


DISTILLED = {"map50": "map50", "map50_95": "map50_95", "ap50 crazing": "ap50 crazing", "ap50 rolled-in_scale": "ap50 rolled-in scale"}
FORMS = {"distillation": distilled}          # those that `table` does not fit


def rewritten(text: str) -> str:
    def fill(match: "re.Match[str]") -> str:
        result = json.loads((RESULTS / f"{match[1]}.json").read_text())
        form = FORMS.get(match[1].removesuffix("-gpu"), table)
        return f"<!-- table: {match[1]} -->\n{form(result)}\n<!-- end -->"
    return re.sub(r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->", fill, text, flags=re.S)


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
