"""Tables and lists of the shift report: targets, lines, products, kinds of defect, what is missing, what changed, alarms; as HTML.

Takes facts as `jobs.shift_facts` has them. Everything from outside is escaped in `cell` or where it stands. States have a mark and a
word, so that nothing hangs on colour; on a phone each row becomes a card, whose labels stand in `data-l`.
"""

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any

from backend.quality import drawings
from backend.quality.rates import percent

MOST_ROWS = 60                         # of a table; a printed report is read, not searched
STATES = {"act": ("▲", "Act"), "look": ("●", "Look"), "normal": ("✓", "Normal"), "none": ("–", "No data"), "minor": ("○", "Minor"),
          "missed": ("▲", "Missed"), "near": ("●", "Near"), "met": ("✓", "Met")}
Row = dict[str, Any]


def targets(facts: Row) -> str:
    rows = [[cell("Target", capital(t["where"])), state(t["state"]), cell("In words", t["words"], "wide")] for t in facts["targets"]]
    return table("Targets", ["Of", "State", "In words"], rows, set())


def lines(facts: Row) -> str:
    rows = [[cell("Line", r["name"]), state(r["state"]), cell("Why", "As usual" if r["state"] == "normal" else r["reason"], "wide"),
             *amounts(r), f"<td data-l='Last shifts'>{_spark(r['recent'])}</td>"]
            for r in facts["lines"]]
    return table("Lines", ["Line", "State", "Why", "Defective", "Parts", "Rate", "Usually", "Last shifts"], rows, {3, 4, 5, 6})


def _spark(recent: Sequence[Row | None]) -> str:
    silent = "" if not recent or recent[-1] else "; nothing came in this one"
    return drawings.spark(recent, f"Rates of the last shifts{silent}") if recent else ""


def products(facts: Row) -> str:
    rows = [[cell("Product", r["name"] or "(none)"), state(r["state"]), *amounts(r)] for r in facts["products"]]
    return table("Products", ["Product", "State", "Defective", "Parts", "Rate", "Usually"], rows, {2, 3, 4, 5})


def kinds(facts: Row) -> str:
    rows = [[cell("Kind", r["name"].replace("_", " ")), state(r["state"]), cell("Defects", f"{r['defects']:,}", "n"),
             cell("Parts with it", f"{r['units']:,}", "n"), cell("Of all parts", percent(r["rate"]), "n"),
             cell("Usually", or_dash(r["usual"]), "n"),
             cell("Running share", "–" if r["cumulative"] is None else f"{r['cumulative']:.0%}", "n")] for r in facts["kinds"]]
    return table("Kinds of defect", ["Kind", "State", "Defects", "Parts with it", "Of all parts", "Usually", "Running share"], rows,
                  {2, 3, 4, 5, 6})


def missing(facts: Row) -> str:
    items = [escape(m) for m in (*facts["missing"], *facts.get("quiet", ()), *facts["fell_silent"])]
    unusual = facts["unusual"]
    if unusual and unusual["unusual"]:
        items.append(f"{unusual['unusual']:,} of {unusual['inspected']:,} parts look unlike good ones; in {unusual['disagree']:,} of them "
                     "no known defect was found. They are not part of the rates.")
    return section("What is missing, or strange", items, "Nothing: every line that usually works sent data." if facts["lines"] else
                   "Nothing came, and no line is known to work in this shift.")


def changed(facts: Row) -> str:
    items = [f"{datetime.fromisoformat(c['at']):%H:%M} {escape(c['text'])}{_by(c)}" for c in facts["changes"]]
    if facts["reviewed"]:
        items.append(f"{facts['reviewed']:,} pictures were looked at by people; that changes no rate.")
    return section("What changed", items, "Nobody changed a threshold, a model or the calendar, and nobody left a note.")


def alarms(facts: Row) -> str:
    items = []
    for a in facts["alarms"]:
        known = f"Explained: {escape(a['text'])}{_by(a)}" if a["text"] else \
            "<b>Nobody has said yet what it was.</b>" if a["open"] else ""
        of = f"{escape(a['chart'])}: " if a["chart"] else ""
        over = f"Over since {escape(a['over'])}. " if a.get("over") else ""
        items.append(f"{of}{escape(a['words'])}. {'Still going on. ' if a['current'] else ''}{over}{known}")
    return section("Alarms", items, "None.")


def amounts(r: Row) -> list[str]:
    return [cell("Defective", f"{r['defective']:,}", "n"), cell("Parts", f"{r['units']:,}", "n"), cell("Rate", or_dash(r["rate"]), "n"),
            cell("Usually", or_dash(r["usual"]), "n")]


def three(n: float) -> str:
    """Three digits that count: 49,587 is said as 49,600."""
    return f"{float(f'{n:.3g}'):,.0f}"


def _by(said: Row) -> str:
    return f" ({escape(said['by'])})" if said["by"] else ""


def or_dash(share: float | None) -> str:
    return "–" if share is None else percent(share)


def cell(label: str, words: str, kind: str = "") -> str:
    return f"<td data-l='{label}'{f' class={chr(39)}{kind}{chr(39)}' if kind else ''}>{escape(words)}</td>"


def state(state: str) -> str:
    mark, word = STATES[state]
    return f"<td data-l='State' class='state {state}'>{mark} {word}</td>"


def table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th{' class=n' if i in numbers else ''}>{h}</th>" for i, h in enumerate(heads))
    more = f"<p class='small soft'>And {len(rows) - MOST_ROWS} more.</p>" if len(rows) > MOST_ROWS else ""
    body = "".join(f"<tr>{''.join(r)}</tr>" for r in rows[:MOST_ROWS])
    return f"<h2>{name}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def section(name: str, items: Sequence[str], nothing: str) -> str:
    said = f"<ul>{''.join(f'<li>{i}</li>' for i in items)}</ul>" if items else f"<p>{nothing}</p>"
    return f"<h2>{name}</h2>{said}"


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]
