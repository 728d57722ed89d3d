"""README's table of many people at once: reruns of each page, and of all; errors; the dashboard's memory."""

from typing import Any

from backend.jobs.bench_dashboard import quantile
from tests.benchmarks.markdown import markdown, source

PAGE = "ms: "


def crowd(result: dict[str, Any]) -> str:
    """A row for each page; then what is told of the whole."""
    (arm,) = result["arms"].values()
    pages = {metric.removeprefix(PAGE): values for metric, values in arm.items() if metric.startswith(PAGE)}
    every = [ms for values in pages.values() for ms in values]
    rows = [[page, *_row(values)] for page, values in {"all pages": every, **pages}.items()]
    memory = arm["memory MB, minute by minute"]
    slope, low, high = arm["MB a minute"]
    errors, seats, uploads, browsed = (f"{arm[k][0]:,.0f}" for k in ("errors", "sessions", "uploads", "pages in Chromium"))
    told = [f"{errors} errors, {seats} sessions, {uploads} uploads (median {quantile(arm['upload s'], 0.5):.1f} s until the batch's page "
            f"was there), {browsed} pages in Chromium.",
            f"Memory of the dashboard: {memory[0]:,.0f} MB in the first minute, {memory[-1]:,.0f} in the last, at most {max(memory):,.0f}; "
            f"{slope:+.2f} MB a minute ({low:+.2f} to {high:+.2f})."]
    return "\n".join([*markdown(["ms", "reruns", "median", "95 of 100 within", "most"], rows), "", *told, "", source(result)])


def _row(values: list[float]) -> list[str]:
    return [f"{len(values):,}", *(f"{quantile(values, share):,.0f}" for share in (0.5, 0.95, 1.0))]
