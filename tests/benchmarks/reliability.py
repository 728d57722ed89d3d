"""README's reliability table: of each long trial what was tried, how often, and what was lost. From results/*.json."""

import json
from collections.abc import Callable
from typing import Any

from backend.jobs.bench_dashboard import quantile
from tests.benchmarks.markdown import markdown
from tests.benchmarks.record import RESULTS

Arms = dict[str, dict[str, list[float]]]


def trials() -> str:
    """A row for each result file that there is."""
    rows = []
    for name, row in ROWS.items():
        if (path := RESULTS / f"{name}.json").exists():
            result = json.loads(path.read_text())
            rows.append([*row(result["arms"]), f"`{result['command'].splitlines()[0].partition(': ')[2] or result['command']}`"])
    return "\n".join(markdown(["tried", "how often", "lost, doubled, wrong", "by"], rows))


def _sum(arms: Arms, key: str) -> int:
    return round(sum(told[key][0] for told in arms.values() if key in told))


def _chaos(arms: Arms) -> list[str]:
    kinds = {name: told for name, told in arms.items() if ": " not in name}
    wrong = {k: n for k in ("lost", "doubled", "other answers", "rebuild differs", "stuck", "set aside", "not to be checked")
             if (n := _sum(kinds, k))}
    return ["SIGKILL to app, supervisor or worker, half of them within a rename or commit; a full and a read-only disk",
            f"{_sum(kinds, 'moments'):,} moments that came in time; {_sum(kinds, 'resumed'):,} runs resumed",
            "; ".join(f"{k}: {n}" for k, n in wrong.items()) or "nothing"]


def _fuzz(arms: Arms) -> list[str]:
    wrong = _sum(arms, "wrong")
    return [f"damaged and hostile uploads: {', '.join(arms)}", f"{_sum(arms, 'uploads'):,} uploads, {_sum(arms, 'sentences'):,} sentences",
            f"{wrong} went wrong" if wrong else "nothing: no crash, no file outside its folder, a plain sentence each"]


def _sessions(arms: Arms) -> list[str]:
    (arm,) = arms.values()
    every = [ms for metric, values in arm.items() if metric.startswith("ms: ") for ms in values]
    return ["many people at once on all pages, uploads among them", f"{arm['sessions'][0]:,.0f} sessions, {len(every):,} pages, "
            f"{arm['uploads'][0]:,.0f} uploads", f"{arm['errors'][0]:,.0f} errors; 95 of 100 pages within {quantile(every, 0.95):,.0f} ms"]


def _ray(arms: Arms) -> list[str]:
    killed = {k: round(v[0]) for k, v in arms["killed nodes"].items()}
    return ["a node of a Ray cluster killed under its runs",
            f"{killed['kills']} kills, {killed['runs']} runs, {killed['went on elsewhere']} went on elsewhere",
            f"{killed['rows lost']} rows lost, {killed['rows doubled']} doubled"]


ROWS: dict[str, Callable[[Any], list[str]]] = {"chaos": _chaos, "fuzz": _fuzz, "sessions": _sessions, "ray": _ray}
