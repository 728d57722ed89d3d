"""README says what is true: its tables come from the result files, its commands and files exist."""

import json
import re
from pathlib import Path

from backend.config import RECIPES
from tests.benchmarks.tables import README, rewritten

ROOT = Path(__file__).resolve().parents[1]


def test_tables_are_the_result_files() -> None:
    text = README.read_text()
    assert "<!-- table:" in text
    assert rewritten(text) == text, "run: python -m tests.benchmarks.tables"


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
