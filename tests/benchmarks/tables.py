"""Rewrite README's tables from results/*.json: `python -m tests.benchmarks.tables`. A test fails when they differ.

In README, a table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
from typing import Any

from tests.benchmarks.anomaly_arms import ABLATION, MAIN
from tests.benchmarks.comparison_tables import compared
from tests.benchmarks.dashboard_tables import grown
from tests.benchmarks.lake_tables import shared
from tests.benchmarks.markdown import cell, difference, few, markdown, percent, points, source, spread
from tests.benchmarks.ray_tables import clustered
from tests.benchmarks.record import RESULTS, ROOT
from tests.benchmarks.reliability import trials
from tests.benchmarks.sessions_tables import crowd
from tests.benchmarks.synthesis_tables import made

README = ROOT / "README.md"


def table(result: dict[str, Any]) -> str:
    """One row per arm, one column per metric, and below it where the figures come from."""
    metrics = list(dict.fromkeys(m for values in result["arms"].values() for m in values))
    head = ["", *metrics]
    rows = [[arm, *(cell(values[m]) if m in values else "" for m in metrics)] for arm, values in result["arms"].items()]
    return "\n".join([*markdown(head, rows), "", source(result)])


def distilled(result: dict[str, Any]) -> str:
    """One row per arm with its difference to `plain`; below, the arms compared with others than that."""
    arms, against = result["arms"], {(c["a"], c["b"]): c for c in result["comparisons"] if c["metric"] == "map50"}
    shown = {m: title for m, title in DISTILLED.items() if all(m in told for told in arms.values())}
    head = ["", "seeds", *shown.values(), "map50 against plain (95 %)"]
    rows = [[arm, str(len(told["map50"])), *(spread(told[m]) for m in shown), difference(against.get((arm, "plain")))]
            for arm, told in arms.items()]
    others = [f"- `{a}` against `{b}`, map50: {difference(c)}" for (a, b), c in against.items() if b != "plain"]
    return "\n".join([*markdown(head, rows), *(["", *others] if others else []), "", source(result)])


def unusual(result: dict[str, Any]) -> str:
    """Anomaly models: one row per arm, its figures on each set; the differences to ours; then the ablation, where it was run. The arm
    nearest to the paper, which is one of the ablation, stands beside ours too. Of the ablation alone: a table of all there is."""
    arms, against = result["arms"], result["comparisons"]
    main = [a for a in arms if a in MAIN or a not in ABLATION] if {"anchor", "ours"} & set(arms) else []
    first, ablation = main, [a for a in arms if a in ABLATION or not main]
    tables = [figured({a: arms[a] for a in some}, groups)
              for some, groups in ((first, ("magnetic-tile", "PIPED")), (ablation, ("magnetic-tile", "two PIPED")))]
    told = [f"- `{a}` against `{b}`, {group}: "
            + "; ".join(f"{ANOMALY[c['metric'].split()[-1]]} {points(c)}" for c in found) + few(found[0])
            for (a, b, group), found in grouped(against).items()]
    blocks = [tables[0], told, tables[1], [source(result)]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def figured(arms: dict[str, dict[str, list[float]]], groups: tuple[str, ...]) -> list[str]:
    """A table of the arms that have figures of one of these sets; nothing where there is none."""
    columns = [f"{group} {metric}" for group in groups for metric in ANOMALY]
    head = ["", "seeds", *(f"{group}: {name}" for group in groups for name in ANOMALY.values())]
    rows = [[arm, "/".join(dict.fromkeys(str(len(told[c])) for c in columns if c in told)), *(percent(told.get(c, [])) for c in columns)]
            for arm, told in arms.items() if any(c in told for c in columns)]
    return markdown(head, rows) if rows else []


def grouped(comparisons: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """By both arms and the set; a metric's name is the set's and the figure's."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for c in comparisons:
        found.setdefault((c["a"], c["b"], c["metric"].rsplit(" ", 1)[0]), []).append(c)
    return found


ANOMALY = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "aupro": "AUPRO"}
# NEU-DET's two hard classes; all of magnetic-tile's
DISTILLED = {"map50": "map50", "map50_95": "map50_95", "ap50 crazing": "ap50 crazing", "ap50 rolled-in_scale": "ap50 rolled-in scale",
             **{f"ap50 {c}": f"ap50 {c}" for c in ("Blowhole", "Break", "Crack", "Fray", "Uneven")}}
# those that `table` does not fit
FORMS = {"comparison": compared, "distillation": distilled, "distillation-tile": distilled, "anomaly": unusual,
         "anomaly-short": unusual, "synthesis": made, "dashboard": grown, "sessions": crowd, "lake": shared, "ray": clustered}


def rewritten(text: str) -> str:
    def fill(match: "re.Match[str]") -> str:
        if match[1] == "reliability":
            return f"<!-- table: reliability -->\n{trials()}\n<!-- end -->"
        result = json.loads((RESULTS / f"{match[1]}.json").read_text())
        form = FORMS.get(match[1].removesuffix("-gpu"), table)
        return f"<!-- table: {match[1]} -->\n{form(result)}\n<!-- end -->"
    return re.sub(r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->", fill, text, flags=re.S)


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
