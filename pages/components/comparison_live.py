"""An experiment while it runs: arms by seeds, each with its state, how far it is and what came of it; no verdict until all are in.

Redrawn every two seconds from files alone. Knows nothing of how an arm is trained or judged.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import run_panel, text, words

# state -> sign, word, class; the sign tells what the colour does
CELLS = {"waiting": ("·", "Not yet", "idle"), "pending": ("◷", "Waiting", "idle"), "running": ("▶", "Running", "busy"),
         "completed": ("✓", "Done", "done"), "failed": ("✗", "Failed", "bad"), "canceled": ("⊘", "Canceled", "idle"),
         "interrupted": ("⚠", "Interrupted", "bad")}
STYLE = """<style>
.arms {overflow-x: auto; max-width: 100%;}
.arms table {border-collapse: separate; border-spacing: .3rem; width: 100%;}
.arms th {font-weight: 600; text-align: left; font-size: .86rem; padding: .2rem .4rem;}
.arms tbody th {min-width: 7rem; max-width: 15rem; overflow-wrap: anywhere;}
.arms td {position: relative; min-width: 5.6rem; padding: .35rem .55rem; border-radius: .4rem; background: rgb(128 128 128 / 11%);
  font-size: .84rem; line-height: 1.3; vertical-align: top; overflow: hidden;}
.arms td b {display: block; font-size: 1rem; font-variant-numeric: tabular-nums;}
.arms td a {color: inherit; text-decoration: none; position: absolute; inset: 0;} .arms td a:focus-visible {outline: 2px solid;}
.arms .done {box-shadow: inset 3px 0 #159A7D;} .arms .busy {box-shadow: inset 3px 0 #2E7EBB;} .arms .bad {box-shadow: inset 3px 0 #D1602B;}
.arms .bar {position: absolute; left: 0; bottom: 0; height: 3px; background: #2E7EBB;}
.arms .mean {background: none; white-space: nowrap;}
@media (max-width: 640px) {.arms tbody th {position: sticky; left: 0; z-index: 1; min-width: 5.5rem; max-width: 6.5rem;
  backdrop-filter: blur(14px);}}
</style>"""


def show(run_id: str) -> None:
    """Head and grid, redrawn while something is open; the page runs again when the verdict is there."""
    found = jobs.experiment(run_id)
    st.fragment(_follow, run_every=2.0 if is_open(found) else None)(run_id, is_open(found))


def is_open(found: dict[str, Any]) -> bool:
    return found["state"] in ("pending", "running")


def _follow(run_id: str, polling: bool) -> None:
    found = jobs.experiment(run_id)
    if polling and not is_open(found):
        st.rerun()
    status = jobs.status(run_id)
    run_panel.head(replace(status, message="") if status.is_open else status)                # it says how many are done, as the bar does
    for warning in found["warnings"]:
        st.warning(words.plain(warning, 600), icon=":material/info:")
    if said := until(found):
        st.caption(said)
    st.html(STYLE + grid(found))
    _problems(found)
    if is_open(found):
        st.info("**No verdict yet.** It is told when every run is in. Who looks while seeds arrive, and stops when the figure pleases, "
                "takes chance for an effect.", icon=":material/hourglass_top:")


def until(found: dict[str, Any]) -> str:
    """When all of it will be there."""
    if not found["eta_s"] or not is_open(found):
        return ""
    ends = datetime.now(UTC) + timedelta(seconds=found["eta_s"])
    return f"{text.count(found['total'] - found['done'])} runs to go; the last one ends about {words.when(ends.isoformat())}."


def grid(found: dict[str, Any]) -> str:
    """A table: an arm each row, a seed each column, the mean of those that are in at the end."""
    seeds = [str(s) for s in found["seeds"]]
    head = "".join(f"<th scope='col'>Seed {escape(s)}</th>" for s in seeds)
    rows = "".join(_row(arm, members) for arm, members in found["arms"].items())
    return (f"<div class='arms' tabindex='0' role='region' aria-label='Arms and seeds'><table><thead><tr><th></th>{head}<th scope='col'>"
            f"Mean so far</th></tr></thead><tbody>{rows}</tbody></table></div>")


def _row(arm: str, members: list[dict[str, Any]]) -> str:
    known = [m["map50"] for m in members if m["map50"] is not None]
    mean = f"<b>{sum(known) / len(known):.3f}</b>{len(known)} of {len(members)}" if known else "–"
    return (f"<tr><th scope='row'>{escape(words.short(arm, 60))}</th>{''.join(_cell(m) for m in members)}"
            f"<td class='mean'>{mean}</td></tr>")


def _cell(member: dict[str, Any]) -> str:
    sign, word, kind = CELLS.get(member["state"], CELLS["waiting"])
    share = member["step"] / member["total"] if member["total"] else 0.0
    if member["state"] == "completed":
        told = f"<b>{member['map50']:.3f}</b>" if member["map50"] is not None else "<b>–</b>"
    else:
        told = f"<b>{share:.0%}</b>" if member["state"] == "running" else ""
    bar = f"<span class='bar' style='width:{share:.0%}'></span>" if member["state"] == "running" else ""
    link = (f"<a href='/runs?run={escape(member['run_id'])}' target='_self' aria-label='See this run'></a>" if member["run_id"] else "")
    return f"<td class='{kind}'>{told}{sign} {word}{bar}{link}</td>"


def _problems(found: dict[str, Any]) -> None:
    """What stopped, and why; Resume of the experiment takes all of it up again."""
    for arm, members in found["arms"].items():
        for member in members:
            if member["state"] in ("failed", "interrupted") and member["run_id"]:
                why = jobs.status(member["run_id"]).message or "It was cut off."
                st.caption(f":material/error: **{words.plain(arm, 60)}, seed {member['seed']}** · {words.plain(why, 300)}")
