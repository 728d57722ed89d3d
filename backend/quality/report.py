"""The shift report as one HTML file that needs nothing else: styles, charts and pictures are inside, no script, nothing fetched.

    facts (see `jobs.shift_facts`) + JPEGs of its pictures ─► html

For somebody who runs a plant: plain words, the answer first, what to do about it beside it. It prints on A4 (nothing is cut by a page's
end), reads on a phone, and stays below `MOST_BYTES`, which mail servers let through: pictures that do not fit are left out, and it says so.
Everything from outside is escaped; the file forbids scripts and foreign addresses by itself.
"""

import base64
from collections.abc import Sequence
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import Any

from backend.quality import drawings
from backend.quality import report_tables as tables
from backend.quality.rates import percent

MOST_BYTES = 8_000_000                 # a common limit of mail servers is 10 MB, and base64 adds a third to what a mail carries
PICTURES_BYTES = 5_000_000
KNOWN = 0.99                           # share of parts that must have a number, or a part in a million would be a picture in a million
SORRY = "Nothing was inspected in this shift"
Row = dict[str, Any]

_STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html(facts: Row, pictures: Sequence[bytes | None] | None = (), edition: Row | None = None) -> str:
    """The report. `pictures`: a JPEG for each of the facts' pictures, None where it is not there any more; None for all: they stay in the
    house. `edition`: number, and of a new one its cause (parts | verdicts), and what the one before it counted: before (units),
    defective_before."""
    title = f"Shift report: {facts['shift']}, {day(date.fromisoformat(facts['day']))}"
    shown = None if pictures is None else _fitting(facts["pictures"], pictures)
    body = "".join([
        _head(facts, title, edition), _verdict(facts), _tiles(facts), tables.targets(facts), _charts(facts), tables.lines(facts),
        tables.products(facts), tables.kinds(facts), tables.missing(facts), tables.changed(facts), tables.alarms(facts), _foot(),
        _pictures(facts, shown)])
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{_STYLE}</style>'
            f"</head><body>{body}</body></html>\n")


def file_name(facts: Row) -> str:
    """'shift-report-2026-11-29-2200-Night.html': letters and digits alone, whatever shifts are called; by its start each has its own."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in facts["shift"]).strip("-") or "shift"
    plant = "demo-" if facts["plant"] == "demo" else ""
    return f"shift-report-{plant}{facts['day']}-{datetime.fromisoformat(facts['start']):%H%M}-{name[:40]}.html"


def headline(facts: Row) -> tuple[str, str]:
    """State of the whole shift (act | look | normal) and one sentence."""
    named = {s: [r["name"] for r in facts["lines"] if r["state"] == s] for s in ("act", "look", "normal")}
    silent, missed = bool(facts["missing"]), [t["where"] for t in facts["targets"] if t["state"] == "missed"]
    if not facts["totals"]["units"]:
        return "look" if silent else "normal", SORRY
    if named["act"]:
        return "act", f"Act on {_listed(named['act'])}"
    if named["look"] or silent:
        return "look", f"Have a look at {_listed(named['look'])}" if named["look"] else "Normal, but data is missing"
    if missed:
        return "look", f"Have a look: target missed on {_listed(missed)}"
    if kinds := [k["name"].replace("_", " ") for k in facts["kinds"] if k["state"] == "act"]:
        return "look", f"Have a look: more {_listed(kinds)} than usual"
    return "normal", "A normal shift"


# the parts, from the top ----------------------------------------------------------------------------------------------------


def _head(facts: Row, title: str, edition: Row | None) -> str:
    start, end = (datetime.fromisoformat(facts[n]) for n in ("start", "end"))
    hours = facts["hours"]
    clocks = ""
    if abs(hours - facts["planned"]) > 0.01:
        clocks = f" Clocks were {'set back' if hours > facts['planned'] else 'put forward'} in it, so it had {hours:g} hours."
    demo = '<p class="made-up">Demo plant: all of this is made up.</p>' if facts["plant"] == "demo" else ""
    made = datetime.fromisoformat(facts["made_at"])
    going = " The shift is still under way: numbers so far." if facts["under_way"] else ""
    anew = ""
    if edition and edition["number"] > 1:
        anew = f" Edition {edition['number']}: made again because {_cause(edition)}."
    when = f"{start:%H:%M} to {end:%H:%M}, {hours:g} hours, times in {escape(facts['zone'])}.{clocks}"
    return f"<h1>{escape(title)}</h1><p class='soft'>{when} Made {day(made)}, {made:%H:%M}.{going}{anew}</p>{demo}"


def _cause(edition: Row) -> str:
    """Which number is another; of the verdicts that is a rule's doing, or a person's: late pictures have nothing to do with it."""
    match edition.get("cause"):
        case "parts":
            return f"the number of parts changed ({edition['before']:,} before): pictures came late, or were taken out"
        case "verdicts":
            return f"verdicts changed ({edition['defective_before']:,} defective before), as by a new threshold; this is not sent"
        case _:                                                                               # of an older program
            return f"the numbers of the shift changed ({edition['before']:,} parts before)"


def _verdict(facts: Row) -> str:
    """The answer to 'was it a normal shift?', and what it is that asks for somebody."""
    state, said = headline(facts)
    rows = [r for r in facts["lines"] if r["state"] in ("act", "look")]
    items = [f"<b style='font-size:inherit'>{escape(r['name'])}</b>: {escape(r['reason'])}." for r in rows[:12]]
    said_of = " ".join(r["reason"] for r in rows).lower()
    items += [f"{tables.capital(escape(k['name'].replace('_', ' ')))} on all lines together: {percent(k['rate'])} of the parts against "
              f"usually {tables.or_dash(k['usual'])}." for k in facts["kinds"]
              if k["state"] == "act" and k["name"].replace("_", " ").lower() not in said_of][:6]
    items += [f"Target missed: {escape(t['where'])}. {escape(t['words'])}." for t in facts["targets"] if t["state"] == "missed"][:6]
    items += [escape(m) for m in facts["missing"][:6]]
    normal = sum(r["state"] == "normal" for r in facts["lines"])
    calm = f"<p>{normal} line{'s' if normal != 1 else ''} as usual.</p>" if normal and (items or state == "normal") else ""
    listed = f"<ul>{''.join(f'<li>{i}</li>' for i in items)}</ul>" if items else ""
    return f"<div class='verdict {state}'><b>{tables.STATES[state][0]} {escape(said)}</b>{listed}{calm}</div>"


def _tiles(facts: Row) -> str:
    now, usual = facts["totals"], facts["usual"]
    if not now["units"]:
        return ""
    parts, dpu = f"{now['units']:,} parts", _usually(usual["defects_per_unit"], ".3f")
    tiles = [("Defective", percent(now["rate"]), f"{now['defective']:,} of {parts}, {_usually(usual['rate'])}"),
             ("Good first time", percent(now["good_first_time"]), f"of {parts}"),
             ("Defects per part", f"{now['defects_per_unit']:.3f}", f"{now['defects']:,} defects, {dpu}"),
             ("Inspected", f"{now['units']:,}", f"parts, {now['pictures']:,} pictures")]
    if now["ppm"] is not None and now["named"] >= KNOWN * now["units"]:
        between = f"{tables.three(now['ppm_low'])} to {tables.three(now['ppm_high'])}"
        tiles.insert(3, ("Defective per million", tables.three(now["ppm"]), between))
    cells = "".join(f"<div class='tile'>{name}<b>{value}</b><span class='soft small'>{more}</span></div>" for name, value, more in tiles)
    band = f"By chance alone the counted rate moves between {percent(now['low'])} and {percent(now['high'])}, 19 times out of 20."
    return f"<div class='tiles'>{cells}</div><p class='small'>{tables.capital(escape(facts['compared']))}. {band}</p>"


def _usually(value: float | None, form: str = "") -> str:
    return "nothing to compare with" if value is None else f"usually {format(value, form) if form else percent(value)}"


def _charts(facts: Row) -> str:
    if not facts["totals"]["units"]:
        return ""
    usual, drawn = facts["usual"]["rate"], []
    dashes = "" if usual is None else f"; dashes: usually {percent(usual)}"
    if facts["shifts"]:
        drawn.append(_figure("The last shifts", f"dark diamond: this one; bars: how far chance alone moves the counted rate{dashes}",
                             drawings.over_time(facts["shifts"], usual, lambda at: f"{at:%a %H:%M}", "Share of defective parts by shift")))
    if facts["hours_of"]:
        drawn.append(_figure("Hour by hour", f"dark diamond: the last hour{dashes}",
                             drawings.over_time(facts["hours_of"], usual, lambda at: f"{at:%H:%M}", "Share of defective parts by hour")))
    drawn.append(_figure("By line", "dark mark: usual", drawings.bars(facts["lines"], "Share of defective parts by line")))
    if facts["kinds"]:
        drawn.append(_figure("Kinds of defect", "numbers, and their running share of all defects as a line",
                             drawings.pareto(facts["kinds"], "Kinds of defect by number")))
    return f"<h2>At a glance</h2><div class='charts'>{''.join(drawn)}</div>"


def _figure(name: str, more: str, svg: str) -> str:
    return f"<figure><figcaption>{name} <span>({more})</span></figcaption>{svg}</figure>"


def _pictures(facts: Row, shown: Sequence[tuple[Row, str]] | None) -> str:
    total, defective = len(facts["pictures"]), facts["totals"]["defective"]
    if not defective:
        return ""
    if shown is None:
        return "<h2>Worst pictures</h2><p>Pictures are not sent. The report in Diffspect shows them.</p>"
    told = [(escape(_told(p)), src) for p, src in shown]
    cells = "".join(f"<figure><img alt='{said}' src='{src}'><div class='small'>{said}</div></figure>" for said, src in told)
    left = "" if len(shown) == total else f" {total - len(shown)} more could not be shown: not kept, or too large for this file."
    if not shown:
        return f"<h2>Worst pictures</h2><p>No picture of a defective part was kept.{left}</p>"
    return (f"<h2 class='new-page'>Worst pictures</h2><p class='soft small'>{_counted(len(shown), 'picture')} of "
            f"{_counted(defective, 'defective part')}: the surest of each kind on each line.{left}</p><div class='pictures'>{cells}</div>")


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _told(p: Row) -> str:
    part = f", part {p['unit']}" if p["unit"] else ""
    product = f", {p['product']}" if p["product"] else ""
    return f"{p['kind'].replace('_', ' ')} on {p['line']}{product}{part}, {datetime.fromisoformat(p['at']):%H:%M}"


def _foot() -> str:
    return ("<footer class='small soft'>How to read this. Usual: what the same line or product showed in the 28 days before, in all "
            "shifts. Act: more than three standard errors above it and at least half as much again, of 50 parts or more. Look: more than "
            "two, or too little to compare with, or a control chart calls. A part that several cameras saw counts once, as defective if "
            "any picture of it is. Last shifts: a bar for each rate, this one dark; a gap, or in this one an empty frame, where nothing "
            "came.</footer>")


# small pieces ---------------------------------------------------------------------------------------------------------------


def _fitting(rows: Sequence[Row], pictures: Sequence[bytes | None]) -> list[tuple[Row, str]]:
    """Pictures that are there, as long as they fit."""
    left, shown = PICTURES_BYTES, []
    for row, jpeg in zip(rows, pictures, strict=False):
        if jpeg is not None and len(jpeg) * 4 / 3 < left:
            left -= len(jpeg) * 4 // 3
            shown.append((row, f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"))
    return shown


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else list(names)
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def day(when: date) -> str:
    """'Sat 21 Nov 2026'."""
    return f"{when:%a} {when.day} {when:%b %Y}"
