"""Small charts as SVG text, for documents that must print and need no script: the shift report's.

Everything that a chart says stands in it as words and numbers: nothing hangs on a pointer or on colour alone. All are drawn 360 units wide,
so that two stand beside one another on A4 and one fills a phone, at about the size of the text. Names from outside are escaped here.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from html import escape
from typing import Any

from backend.quality.rates import percent

INK, SOFT, LINE, BLUE, AMBER, RED = "#22282c", "#5d676d", "#d5dadd", "#2e7ebb", "#b87a00", "#c8511b"
WIDE, LEFT, RIGHT = 360, 44, 350
MOST_BARS, NAME = 12, 30
Row = dict[str, Any]


def over_time(points: Sequence[Row], usual: float | None, label: Callable[[datetime], str], alt: str) -> str:
    """Rates with how far chance alone moves them; the last one, marked and told, is what the report is about. Dashes: the usual rate."""
    top, bottom, most = 24, 130, _nice(max([p["high"] for p in points] + [usual or 0.0]))
    y = _scale(most, top, bottom)
    step = (RIGHT - LEFT - 16) / max(len(points) - 1, 1)
    xs = [LEFT + 8 + (step * i if len(points) > 1 else (RIGHT - LEFT) / 2) for i in range(len(points))]
    parts = [_grid(most, y)]
    parts += [_line(x, y(p["low"]), x, y(p["high"]), "#a9c9e2", 4) for x, p in zip(xs, points, strict=True)]
    parts.append(_path([(x, y(p["rate"])) for x, p in zip(xs, points, strict=True)], BLUE, 1.5))
    parts += [f'<circle cx="{x:.1f}" cy="{y(p["rate"]):.1f}" r="2.5" fill="{BLUE}"/>' for x, p in zip(xs[:-1], points, strict=False)]
    parts.append(_diamond(xs[-1], y(points[-1]["rate"])))
    parts.append(_text(min(xs[-1], RIGHT - 2), max(y(points[-1]["high"]) - 6, 10), percent(points[-1]["rate"]), "end", bold=True))
    if usual is not None:
        parts.append(_line(LEFT, y(usual), RIGHT, y(usual), AMBER, 1.5, "5 3"))
    for i in _few(len(points)):
        anchor = "end" if i and i == len(points) - 1 else "middle"
        parts.append(_text(xs[i], bottom + 16, label(datetime.fromisoformat(points[i]["at"])), anchor, 10))
    return _svg(parts, bottom + 24, alt)


def bars(rows: Sequence[Row], alt: str) -> str:
    """Share of defective by name, each bar with its number in words; a dark mark stands at what is usual."""
    shown = rows[:MOST_BARS]
    most = _nice(max([r["rate"] or 0 for r in shown] + [r["usual"] or 0 for r in shown]))
    parts, at = [], 0
    for r in shown:
        at += 14
        parts.append(_text(0, at - 2, _short(r["name"]) or "(none)"))
        parts.append(_text(WIDE, at - 2, _against(r), "end", size=10))
        parts += [_rect(0, at + 3, WIDE, 10, "#eff1f2"), _rect(0, at + 3, WIDE * (r["rate"] or 0) / most, 10, BLUE)]
        if r["usual"] is not None:
            parts.append(_line(WIDE * r["usual"] / most, at, WIDE * r["usual"] / most, at + 16, INK, 2.5))
        at += 22
    return _svg(parts, at + 2, alt)


def pareto(rows: Sequence[Row], alt: str) -> str:
    """Kinds by number of defects, largest first, and their running share as a line with its percentages."""
    shown = rows[:8]
    top, bottom, most = 30, 130, max(r["defects"] for r in shown)
    y, share = _scale(most, top, bottom), _scale(1.0, top - 14, bottom)
    step = WIDE / len(shown)
    xs = [step * (i + 0.5) for i in range(len(shown))]
    parts = [_line(0, bottom, WIDE, bottom, LINE, 1)]
    for x, r in zip(xs, shown, strict=True):
        parts.append(_rect(x - step * 0.32, y(r["defects"]), step * 0.64, bottom - y(r["defects"]), "#c9d2d8" if r["minor"] else BLUE))
        parts.append(_text(x, bottom + 14, _short(r["name"], max(5, int(step / 6.2))), "middle", size=10))
        parts.append(_text(x, bottom + 27, f"{r['defects']:,}{' minor' if r['minor'] else ''}", "middle", size=10, bold=True))
    major = [(x, r["cumulative"]) for x, r in zip(xs, shown, strict=True) if r["cumulative"] is not None]
    parts.append(_path([(x, share(c)) for x, c in major], AMBER, 2))
    for i, (x, c) in enumerate(major):
        parts.append(f'<circle cx="{x:.1f}" cy="{share(c):.1f}" r="3" fill="{AMBER}"/>')
        if i in (0, len(major) - 1) or len(major) <= 5:
            last = bool(i) and i == len(major) - 1
            beside = (WIDE, share(c) - 7, "end") if last else (x + step * 0.36, share(c) + 4, "start")
            parts.append(_text(beside[0], beside[1], f"{c:.0%}", beside[2], 10))
    return _svg(parts, bottom + 34, alt)


def spark(points: Sequence[Row | None], alt: str) -> str:
    """A line's last shifts as tiny bars, this one dark. Where nothing came a gap; in this one an empty frame, or the bar of the one before
    would pass for it."""
    shown = points[-21:]
    most, step = max([p["rate"] for p in shown if p] + [1e-9]), 84 / max(len(shown), 1)
    parts = []
    for i, p in enumerate(shown):
        this = i == len(shown) - 1
        if p:
            height = 18 * p["rate"] / most
            parts.append(_rect(i * step, 20 - height, step * 0.7, height + 1, INK if this else "#9db6c8"))
        elif this:
            parts.append(f'<rect x="{i * step:.1f}" y="2.5" width="{step * 0.7:.1f}" height="18" fill="none" stroke="{INK}" '
                         'stroke-dasharray="2 2"/>')
    return f'<svg class="spark" viewBox="0 0 84 22" width="84" height="22" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'


def _against(r: Row) -> str:
    usual = f", usually {percent(r['usual'])}" if r["usual"] is not None else ""
    return f"{percent(r['rate'])} ({r['defective']:,} of {r['units']:,}){usual}" if r["units"] else f"nothing{usual}"


def _svg(parts: Sequence[str], height: float, alt: str) -> str:
    return f'<svg viewBox="0 0 {WIDE} {height:.0f}" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 11, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{INK if bold or size > 10 else SOFT}"{weight}>' \
           f"{escape(words)}</text>"


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'


def _path(points: Sequence[tuple[float, float]], color: str, width: float) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"{dashed}/>'


def _diamond(x: float, y: float) -> str:
    return f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6-6z" fill="{INK}"/>'


def _grid(most: float, y: Callable[[float], float]) -> str:
    return "".join(_line(LEFT, y(v), RIGHT, y(v), LINE, 1) + _text(LEFT - 4, y(v) + 4, _tick(v), "end", size=10)
                   for v in (0.0, most / 2, most))


def _tick(share: float) -> str:
    return f"{share * 100:.3g} %"


def _scale(most: float, top: float, bottom: float) -> Callable[[float], float]:
    return lambda value: bottom - (bottom - top) * min(value / most, 1.0)


def _nice(most: float) -> float:
    """The next of 1, 2, 4, 6, 10 times a power of ten above a share; never nothing, at most all."""
    if most <= 0:
        return 0.01
    power = 10.0 ** (len(str(int(1 / most))) * -1)
    return min(next(n * power for n in (1, 2, 4, 6, 10, 20, 40, 60, 100) if n * power >= most), 1.0)


def _few(n: int) -> list[int]:
    """Which of n points get a label: the first, the middle and the last."""
    return sorted({0, n // 2, n - 1}) if n > 4 else list(range(n))


def _short(name: str, limit: int = NAME) -> str:
    line = " ".join(str(name).replace("_", " ").split())
    return line if len(line) <= limit else f"{line[:limit - 1]}…"
