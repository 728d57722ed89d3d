"""README's tables of the comparison benchmark: experiments on real sets, do verdicts tell the truth, how long does a person wait.

Knows no benchmark.
"""

from statistics import mean
from typing import Any

from tests.benchmarks.markdown import markdown, spread

VERDICTS = ("better", "worse", "no difference", "not enough evidence")
REAL = {"map50": "map50", "map50_95": "map50_95", "val_map50": "map50 on val", "missed_images": "missed defects",
        "false_rejects": "false rejects"}
HELD = "interval holds it"
NO_SHARES = ("seconds", "further seeds", "real labels")
Arms = dict[str, dict[str, list[float]]]


def compared(result: dict[str, Any]) -> str:
    """Real experiments and their sentences; the planted differences; what else was counted, a line each; the waiting times; where all of it
    comes from."""
    statistics, size = (part(result["arms"], name) for name in ("statistics", "size"))
    planted = {arm: told for arm, told in statistics.items() if VERDICTS[0] in told}
    rows = [[arm, share(told[HELD]), f"± {mean(told['half width, points']):.1f}", *(share(told[v]) for v in VERDICTS)]
            for arm, told in planted.items()]
    head = ["planted", "95 % interval holds it", "interval, points", *VERDICTS]
    others = [f"- {arm}: " + ", ".join(f"{figure} {shown(figure, values)}" for figure, values in told.items())
              for arm, told in statistics.items() if arm not in planted]
    waits = markdown(["", *next(iter(size.values()))], [[arm, *(f"{mean(v):.0f}" for v in told.values())] for arm, told in size.items()]) \
        if size else []
    blocks = [*real(result), markdown(head, rows), others, waits, [origin(result)]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def real(result: dict[str, Any]) -> list[list[str]]:
    """A row for each arm of each experiment, mean and standard deviation over its seeds; then every sentence as the product said it."""
    arms = {arm: told for arm, told in result["arms"].items() if "val_map50" in told}
    if not arms:
        return []
    head = ["experiment", "arm", "seeds", *REAL.values()]
    rows = [[*arm.split(": ", 1), str(len(told["map50"])), *(spread(told[m]) if m in told else "" for m in REAL)]
            for arm, told in arms.items()]
    said = [f"- {c['a'].split(': ', 1)[0]}: {c['sentence']}" for c in result["comparisons"]]
    return [markdown(head, rows), said]


def part(arms: Arms, name: str) -> Arms:
    return {arm.removeprefix(f"{name}: "): told for arm, told in arms.items() if arm.startswith(f"{name}: ")}


def share(values: list[float]) -> str:
    """'95.2 %': the mean over batches."""
    return f"{100 * mean(values):.1f} %"


def shown(figure: str, values: list[float]) -> str:
    return f"{mean(values):.3g}" if figure in NO_SHARES else share(values)


def origin(result: dict[str, Any]) -> str:
    """Each part's command and notes, then the machine."""
    notes = dict(line.split(": ", 1) for line in result["notes"].splitlines())
    told = (f"`{command}`: {notes[name]}" for name, command in (line.split(": ", 1) for line in result["command"].splitlines()))
    return " ".join([*told, f"{result['machine']}."])
