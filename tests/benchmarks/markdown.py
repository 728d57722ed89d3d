"""How README shows figures: a table, a mean with its spread, a difference with its interval, where it comes from. Knows no benchmark."""

from statistics import mean, stdev
from typing import Any


def cell(values: list[float]) -> str:
    """'61.2' for one seed, '61.2 (60.1 to 62.0)' for several; shares stay as they were written."""
    shown = f"{mean(values):.3g}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.3g} to {max(values):.3g})"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows]]


def source(result: dict[str, Any]) -> str:
    """Where the figures come from."""
    seeds = f", seeds {', '.join(map(str, result['seeds']))}" if result["seeds"] else ""
    return f"`{result['command']}`{seeds}; {result['machine']}. {result['notes']}"


def spread(values: list[float]) -> str:
    """'0.612', or '0.612 ± 0.011': mean and standard deviation over seeds."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def difference(c: dict[str, Any] | None) -> str:
    """'+0.052 (+0.031 to +0.074)'; nothing where nothing was compared."""
    return f"{c['difference']:+.3f} ({c['low']:+.3f} to {c['high']:+.3f}){few(c)}" if c else ""


def few(c: dict[str, Any]) -> str:
    """', 1 seed', or ', 1 seed against 3', where a side of a comparison has no more."""
    one, other = c["seeds"], c.get("seeds_b", c["seeds"])
    return "" if min(one, other) > 1 else ", 1 seed" if one == other else f", {one} seed{'s' * (one > 1)} against {other}"


def percent(values: list[float]) -> str:
    """'93.5', or '93.5 ± 0.4'; nothing where there is nothing."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "") if values else ""


def points(c: dict[str, Any]) -> str:
    """'+4.5 (+3.1 to +6.0)'."""
    return f"{c['difference']:+.1f} ({c['low']:+.1f} to {c['high']:+.1f})"
