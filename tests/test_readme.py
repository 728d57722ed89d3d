"""README says what is true: its tables come from the result files, its commands and files exist."""

import json
import re
from pathlib import Path

import pytest

from backend.config import RECIPES
from tests.benchmarks import reliability
from tests.benchmarks.record import RESULTS
from tests.benchmarks.tables import FORMS, README, rewritten

ROOT = Path(__file__).resolve().parents[1]
UNMARKED = {"chaos": "a row of the table reliability", "fuzz": "a row of the table reliability",
            "tuning": "why the optimiser is this one: quoted in the note below the table distillation"}


def test_tables_are_the_result_files() -> None:
    text = README.read_text()
    assert "<!-- table:" in text
    assert rewritten(text) == text, "run: python -m tests.benchmarks.tables"


def test_no_result_is_left_out() -> None:
    text, results = README.read_text(), sorted(p.stem for p in RESULTS.glob("*.json") if not p.stem.endswith("-check"))    # a trial's own
    assert results and not unshown(results, text), "README needs a marker <!-- table: NAME --> for each"
    assert UNMARKED.keys() <= set(results) and not UNMARKED.keys() & set(marked(text))
    assert {"chaos", "fuzz"} <= reliability.ROWS.keys() and "reliability" in marked(text) and "tuning" not in FORMS


@pytest.mark.parametrize("name", ["synthesis-gpu", "a-new-one"])
def test_a_result_without_a_marker_is_missed(name: str) -> None:
    text = "<!-- table: synthesis -->\n<!-- end -->"
    assert unshown(["synthesis", "chaos", name], text) == [name]


def unshown(results: list[str], text: str) -> list[str]:
    """Results that no table of README shows, though nothing says why not. Every one has a form: that of its kind, or the plain one."""
    return [name for name in results if name not in marked(text) and name not in UNMARKED]


def marked(text: str) -> list[str]:
    return re.findall(r"^<!-- table: ([\w-]+) -->$", text, flags=re.M)


def test_every_recipe_is_named() -> None:
    text = README.read_text()
    ours = [name for name, config in RECIPES.items() if config.__module__ == "backend.config"]      # other tests add their own
    assert len(ours) >= 6 and not [name for name in ours if name not in text]


def test_files_that_readme_names_exist() -> None:
    text = README.read_text()
    named = re.findall(r"\]\((?!http)([\w./-]+)\)", text) + re.findall(r"^ {0,4}([\w./-]+\.(?:py|md|toml|sql|lock))\s", text, flags=re.M)
    assert named and not [n for n in named if not (ROOT / n).exists() and not (ROOT / "backend" / n).exists()]


def test_results_have_the_design_form() -> None:
    for path in (ROOT / "tests" / "benchmarks" / "results").glob("*.json"):
        result = json.loads(path.read_text())
        assert {"name", "command", "commit", "machine", "versions", "seeds", "arms", "comparisons", "notes"} == set(result), path.name
