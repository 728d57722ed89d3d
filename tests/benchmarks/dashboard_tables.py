"""README's table of how the dashboard fares as a plant grows: a row for what was asked, medians and 95 % points for each size.

Of the questions to the store only those that took longer than aimed at, and how many did not.
"""

from typing import Any

from tests.benchmarks.markdown import markdown, source

AIM_MS = 100.0                 # of a question to the store, at the 95 % point
Arm = dict[str, list[float]]


def grown(result: dict[str, Any]) -> str:
    arms: dict[str, Arm] = result["arms"]
    quick, slow = _questions(arms)
    asked = [*slow, *dict.fromkeys(_name(m) for arm in arms.values() for m in arm if m.startswith("page ms"))]
    single = dict.fromkeys(m for arm in arms.values() for m, v in arm.items() if not m.endswith(("p50", "p95", "max")))
    rows = [[_said(name), *(_both(arm, name) for arm in arms.values())] for name in asked]
    rows.insert(len(slow), [f"{quick} {'other ' if slow else ''}questions to the store, 95 of 100 of the slowest within",
                            *(_slowest(arm, slow) for arm in arms.values())])
    rows += [[m, *(f"{arm[m][0]:,.0f}" if m in arm else "" for arm in arms.values())] for m in single if m != "draw s"]
    return "\n".join([*markdown(["ms: median (95 of 100 within)", *arms], rows), "", source(result)])


def _name(metric: str) -> str:
    return metric.rsplit(", ", 1)[0]


def _said(name: str) -> str:
    return name.removeprefix("page ms: ").replace("query ms: ", "question: ")


def _both(arm: Arm, name: str) -> str:
    half, most = (arm.get(f"{name}, {q}") for q in ("p50", "p95"))
    return f"{half[0]:,.0f} ({most[0]:,.0f})" if half and most else ""


def _questions(arms: dict[str, Arm]) -> tuple[int, list[str]]:
    """How many questions kept to the aim at every size, and the names of the others."""
    names = dict.fromkeys(_name(m) for arm in arms.values() for m in arm if m.startswith("query ms"))
    slow = [n for n in names if max(arm.get(f"{n}, p95", [0.0])[0] for arm in arms.values()) > AIM_MS]
    return len(names) - len(slow), slow


def _slowest(arm: Arm, slow: list[str]) -> str:
    most = [v[0] for m, v in arm.items() if m.startswith("query ms") and m.endswith("p95") and _name(m) not in slow]
    return f"{max(most, default=0):,.0f}"
