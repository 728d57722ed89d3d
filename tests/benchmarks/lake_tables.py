"""README's table of the store of several plants: how fast it takes rows in, what its answers take beside the file's, what tidying does."""

from statistics import median
from typing import Any

from tests.benchmarks.markdown import cell, markdown, source

SLOWEST = 5                    # questions that are told one by one


def shared(result: dict[str, Any]) -> str:
    """A row for each number of writers; then the questions, in words; then small batches."""
    parts: dict[str, dict[str, Any]] = {}
    for name, told in result["arms"].items():
        part, _, arm = name.partition(": ")
        parts.setdefault(part, {})[arm] = told
    blocks = [form(parts[part]) for part, form in (("writers", _writers), ("questions", _questions), ("tidy", _tidied)) if part in parts]
    return "\n\n".join([*blocks, source(result).replace("\n", "; ")])


def _writers(arms: dict[str, Any]) -> str:
    return "\n".join(markdown(["taken in", "rows/s"], [[arm, cell(told["rows_per_s"])] for arm, told in arms.items()]))


def _questions(arms: dict[str, Any]) -> str:
    ratios = {name: values[0] for name, values in arms["lake / file"].items() if not name.startswith("of all")}
    worst = sorted(ratios, key=lambda name: -arms["lake"][name][0])[:SLOWEST]
    rows = [[name, *(f"{arms[arm][name][0]:,.1f}" for arm in ("file", "lake")), f"{ratios[name]:.1f}"] for name in worst]
    mean = arms["lake / file"]["of all, geometric mean"][0]
    told = f"{len(ratios)} questions of the pages, medians: {mean:.1f} times as long as on the file (geometric mean)."
    told += " Those that take longest:"
    return "\n".join([told, "", *markdown(["ms", "file", "lake", "ratio"], rows)])


def _tidied(arms: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for told in arms.values() for name in told))
    rows = [[name, *(f"{median(told[name]):,.0f}" if name in told else "" for told in arms.values())] for name in names]
    return "\n".join(markdown(["after 60 batches of 20 pictures", *arms], rows))
