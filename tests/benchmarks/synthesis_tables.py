"""README's form of the synthesis benchmark: a table for each part, below it the differences, then where the figures come from."""

from typing import Any

from tests.benchmarks.markdown import markdown, percent, source, spread

# part -> columns: metric, title, how it is shown
COLUMNS = {
    "kid": [("kid", "KID × 1,000", percent), ("copied", "copied", spread), ("diversity", "variety against real", spread)],
    "recognition": [("accuracy", "accuracy", percent)],
    "tail": [("ap50 Crack", "ap50 Crack", spread), ("map50", "map50", spread)],
    "detection": [("map50", "map50", spread), ("map50_95", "map50_95", spread)],
}
CLASSES = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
COLUMNS["kid"] += [(f"kid {c}", c, percent) for c in CLASSES]
COLUMNS["recognition"] += [(f"accuracy {c}", c, percent) for c in CLASSES]


def made(result: dict[str, Any]) -> str:
    blocks = []
    for part, columns in COLUMNS.items():
        arms = {name.partition(" ")[2]: told for name, told in result["arms"].items() if name.startswith(f"{part} ")}
        if arms:
            rows = [[arm, str(max(map(len, told.values()), default=0)), *(show(told[m]) if told.get(m) else "" for m, _, show in columns)]
                    for arm, told in arms.items()]
            blocks += [markdown([part, "seeds", *(title for _, title, _ in columns)], rows), _differences(result["comparisons"], part)]
    return "\n\n".join("\n".join(block) for block in [*blocks, [source(result)]] if block)


def _differences(comparisons: list[dict[str, Any]], part: str) -> list[str]:
    told = [c for c in comparisons if c["a"].startswith(f"{part} ")]
    return [f"- `{c['a'].partition(' ')[2]}` against `{c['b'].partition(' ')[2]}`, {c['metric']}: {_difference(c)}" for c in told]


def _difference(c: dict[str, Any]) -> str:
    """'+5.2 (+3.1 to +7.4)', shares with three digits behind the point."""
    digits = 3 if c["metric"].startswith(("map50", "ap50")) else 1
    return f"{c['difference']:+.{digits}f} ({c['low']:+.{digits}f} to {c['high']:+.{digits}f})" + (", 1 seed" if c["seeds"] == 1 else "")
