"""What the test says of two arms picture by picture, in words: defects missed, good parts rejected, and where only one of them is right.

Reads one difference of `comparison.json`; page and export tell it alike. Knows nothing of how it was reached.
"""

from typing import Any

import streamlit as st

from pages.components import text, words
from pages.components.comparison_figures import points


def show(row: dict[str, Any]) -> None:
    lines = plain(row)
    if lines:
        with st.container(border=True, key="proof"):
            st.markdown("**Picture by picture**, each model at its own thresholds, chosen on validation pictures")
            st.markdown("\n".join(f"- {words.plain(line, 600)}" for line in lines))


def plain(row: dict[str, Any]) -> list[str]:
    """A sentence each; what could not be measured says so."""
    told = [_share(row, "missed", "defective parts", "lets through"), _share(row, "false_rejects", "good parts", "rejects"), _mcnemar(row),
            row.get("no_good_text") or ""]
    return [line for line in told if line]


def _share(row: dict[str, Any], name: str, of: str, verb: str) -> str:
    """'Of 32 defective parts “both” lets through 9.4 %, “real” 12 %: −2.8 points [−6.1, +0.4], which may be chance.'"""
    found = row.get(name)
    if not found:
        return ""
    interval = f"{points(found['difference'])} points [{points(found['low'])}, {points(found['high'])}]"
    return (f"Of {text.count(found['images'])} {of} “{row['a']}” {verb} {text.percent(found['a'])}, “{row['b']}” "
            f"{text.percent(found['b'])}: {interval}{_sure(found)}.")


def _sure(found: dict[str, Any]) -> str:
    return ", which may be chance" if found["low"] <= 0 <= found["high"] else ""


def _mcnemar(row: dict[str, Any]) -> str:
    """Where only one of the two is right, and how often that would come of chance."""
    found = row.get("mcnemar")
    if not found:
        return ""
    only_a, only_b, both, neither = (found[k] for k in ("only_a", "only_b", "both", "neither"))
    told = (f"Of {text.count(only_a + only_b + both + neither)} parts the two judge {text.count(both)} alike rightly and "
            f"{text.count(neither)} alike wrongly; {text.count(only_a)} are right by “{row['a']}” alone, {text.count(only_b)} by "
            f"“{row['b']}” alone.")
    if found["p"] is None:
        return f"{told} Pictures of one lot are not so many judgements, so no probability is told."
    return (f"{told} Were both equally good, chance alone would split them so unevenly {chance(found['p'])} (McNemar: p {found['p']:.3f}, "
            f"mid-p {found['mid_p']:.3f}).")


def chance(p: float) -> str:
    """A probability as people say it."""
    if p < 0.001:
        return "less than once in 1,000 times"
    return f"{10 * p:.1f} times in 10".replace(".0 ", " ") if p >= 0.1 else f"{100 * p:.1f} times in 100".replace(".0 ", " ")
