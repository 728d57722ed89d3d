"""Names of people's are never HTML: in a report, in a comparison that is taken away, in charts, in mails, in our own elements."""

import ast
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from backend.jobs import senders
from backend.jobs.channels import Channel
from backend.jobs.senders import Message
from backend.quality import drawings, report_tables
from pages.components import charts, comparison_live, comparison_pair, text, words

ROOT = Path(__file__).resolve().parents[1]
EVIL = '"><img src=x onerror="window.hurt=1"><script>alert(1)</script>'
# Where HTML of our own is shown: what goes in is constant, or escaped there, and seen below or in the page tests.
SHOWN = {"pages/comparison.py": 1, "pages/overview.py": 1, "pages/components/charts.py": 1, "pages/components/comparison_images.py": 1,
         "pages/components/comparison_live.py": 1, "pages/components/comparison_pair.py": 5, "pages/components/comparison_plan.py": 2,
         "pages/components/comparison_players.py": 1, "pages/components/image_viewer.py": 2, "pages/components/judging.py": 1,
         "pages/components/new_class.py": 1, "pages/components/plant.py": 1, "pages/components/report_view.py": 1,
         "pages/components/sign_in.py": 1, "pages/components/synthesis_cards.py": 2,
         "pages/components/synthesis_judge.py": 1, "pages/components/synthesis_pictures.py": 3}


def test_html_is_shown_only_where_somebody_has_looked() -> None:
    """A new `st.html` is a decision: look at what goes in, then count it here."""
    found: dict[str, int] = {}
    for path in sorted((ROOT / "pages").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "html" \
                    and ast.unparse(node.func.value) == "st":
                found[path.relative_to(ROOT).as_posix()] = found.get(path.relative_to(ROOT).as_posix(), 0) + 1
            assert not (isinstance(node, ast.keyword) and node.arg == "unsafe_allow_html"), path
    assert {k: v for k, v in found.items() if SHOWN.get(k) != v} == {}


def test_our_own_script_writes_text_never_html() -> None:
    scripts = [p.read_text() for p in (ROOT / "pages").rglob("*.js")]
    assert scripts and not [s for s in scripts if re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", s)]


def tame(html: str) -> bool:
    return "<img" not in html and "<script" not in html and "onerror=\"" not in html


def test_elements_of_ours_hold_names_as_text() -> None:
    member = dict(state="completed", step=1, total=1, map50=0.5, run_id=EVIL)
    assert tame(comparison_live.grid(dict(seeds=[EVIL, 1], arms={EVIL: [member, member]})))
    boxes = pd.DataFrame([dict(class_name=EVIL, confidence=0.9, x1=1, y1=1, x2=9, y2=9, hit=False, hit_box=-1)])
    assert tame(comparison_pair.marks(comparison_pair.Side("", boxes, boxes, set()), (40, 40)))
    line = dict(name=EVIL, state="act", reason=EVIL, defective=1, units=10, rate=0.1, usual=0.05, recent=[])
    facts = dict(lines=[line], products=[line], targets=[dict(where=EVIL, state="missed", words=EVIL)],
                 changes=[dict(at="2026-11-29T06:00:00+00:00", text=EVIL, by=EVIL)], reviewed=0, missing=[EVIL], fell_silent=[EVIL],
                 unusual=None, alarms=[dict(chart=EVIL, words=EVIL, text=EVIL, by=EVIL, open=True, current=True, over=EVIL)])
    for part in (report_tables.lines, report_tables.products, report_tables.targets, report_tables.changed, report_tables.missing,
                 report_tables.alarms):
        assert tame(part(facts)), part.__name__
    assert tame(drawings.bars([line], EVIL)) and "&lt;img" in drawings.bars([line], EVIL)


def test_charts_hold_names_as_text() -> None:
    """Plotly reads labels as a little HTML, and fills in what stands behind a percent sign; in a file its JSON stands in a script."""
    rows = pd.DataFrame([dict(class_name=EVIL, value=EVIL, name=EVIL, minor=False, defects=3, units=2, cumulative=1.0, rate=0.1, low=0.0,
                              high=0.2, defective=1, inspected=10, step=1)])
    for figure in (charts.bars(rows, EVIL), charts.pareto(rows, EVIL), charts.curves(rows.assign(value=0.5)),
                   charts.stacked(rows, "name", "defects", "value"), charts.scatter(rows, "defects", "units", "name")):
        labels = json.loads(figure.to_json())
        assert not [v for v in _words(labels, "customdata") if "<img" in v or "<script" in v]
        assert "</script><" not in figure.to_html(full_html=False, include_plotlyjs=False).replace("</script></div>", "")
    assert text.html("%{customdata} <b>&") == "&#37;{customdata} &lt;b&gt;&amp;"


def _words(value: object, without: str) -> list[str]:
    """Every text in JSON but what stands under this name."""
    if isinstance(value, dict):
        return [w for k, v in value.items() if k != without for w in [str(k), *_words(v, without)]]
    return [w for v in value for w in _words(v, without)] if isinstance(value, list) else [value] if isinstance(value, str) else []


@pytest.mark.parametrize("name", [EVIL, "[a](javascript:alert(1))", "![x](http://foreign/x.png)", "<b>", "$x$", "a\n# b", ":red[x]", "`x`"])
def test_names_in_markdown_are_shown_as_they_were_written(name: str) -> None:
    """Every mark with a meaning stands behind a backslash."""
    said = words.plain(name)
    assert "\n" not in said and not re.search(r"(?<!\\)[\[\]()<>`$!:#*_]", said)


def test_a_mail_is_plain_text_and_its_subject_one_line() -> None:
    message = Message("1", "opened", f"{EVIL}\nBcc: all@plant.example\r\nX: y", datetime.now(UTC), dict(hint=EVIL, reasons=[EVIL]))
    letter = senders._letter(Channel("M", "mail", server="r", sender="a@b", to=["c@d"]), message)
    assert letter.get_content_type() == "text/plain" and letter["Bcc"] is None and letter["X"] is None
    assert "\n" not in letter["Subject"] and str(letter["Subject"]).startswith("Diffspect: ")
