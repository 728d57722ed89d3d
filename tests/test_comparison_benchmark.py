"""The benchmark of comparisons: what it counts, and that its parts leave each other's figures alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import comparison, record, tables


def test_parts_of_one_file_leave_each_other_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    record.join("both", "size", "python -m size", {"list": {"ms": [3.0]}}, [], "Of 500 runs.", ("numpy",))
    record.join("both", "statistics", "python -m statistics", {"0 points": {"held": [0.9]}, "2 points": {"held": [0.9]}}, [0, 1], "Told.",
                ("scipy",))
    record.join("both", "statistics", "python -m statistics --more", {"0 points": {"held": [0.95]}}, [0], "Told anew.", ("scipy",))
    result = json.loads((tmp_path / "both.json").read_text())
    assert result["arms"] == {"size: list": {"ms": [3.0]}, "statistics: 0 points": {"held": [0.95]}}
    assert result["command"] == "size: python -m size\nstatistics: python -m statistics --more"
    assert result["notes"] == "size: Of 500 runs.\nstatistics: Told anew." and result["seeds"] == [0, 1]
    assert {"numpy", "scipy"} < set(result["versions"])


def test_the_table_shows_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    verdicts = {"better": [0.02, 0.04], "worse": [0.0, 0.02], "no difference": [0.0, 0.0], "not enough evidence": [0.98, 0.94]}
    record.join("both", "statistics", "python -m statistics", {
        "0 points, 5 seeds": {"interval holds it": [0.94, 0.96], "half width, points": [1.7, 1.9], **verdicts},
        "open after 5 seeds": {"settled": [0.6, 0.7], "further seeds": [9.0, 11.0]}}, [0, 1], "Simulated.", ("numpy",))
    record.join("both", "size", "python -m size", {"list of runs": {"ms, median": [12.0], "ms, 95 of 100": [31.4]}}, [], "Of 500 runs.",
                ("numpy",))
    record.join("both", "steel", "python -m backend experiment", {"real": {"map50": [0.4, 0.5], "val_map50": [0.5, 0.5]}}, [0, 1],
                "Trained.", ("torch",), [dict(a="pasted", b="real", sentence="Pasted adds nothing.")])
    record.join("both", "size", "python -m size", {"list of runs": {"ms, median": [12.0], "ms, 95 of 100": [31.4]}}, [], "Of 500 runs.",
                ("numpy",))
    shown = tables.FORMS["comparison"](json.loads((tmp_path / "both.json").read_text()))
    assert "| 0 points, 5 seeds | 95.0 % | ± 1.8 | 3.0 % | 1.0 % | 0.0 % | 96.0 % |" in shown
    assert "- open after 5 seeds: settled 65.0 %, further seeds 10" in shown and "| list of runs | 12 | 31 |" in shown
    assert "| steel | real | 2 | 0.450 ± 0.071 |  | 0.500 ± 0.000 |" in shown and "- steel: Pasted adds nothing." in shown
    assert "`python -m size`: Of 500 runs. `python -m statistics`: Simulated." in shown.splitlines()[-1]


@pytest.mark.parametrize("part", [p for p in comparison.PARTS if p is not comparison.differences], ids=lambda p: p.__name__)
def test_every_part_counts_something(part: Callable[[np.random.Generator], Iterator[tuple[str, comparison.Row]]],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "ROUNDS", 20)
    rows = [row for seed in range(2) for row in part(np.random.default_rng(seed))]
    assert rows and all(arm and figures for arm, figures in rows)


def test_a_batch_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "RESULTS", tmp_path)
    monkeypatch.setattr(comparison, "PARTS", (comparison.images,))
    first = comparison.kept(0, 1)
    monkeypatch.setattr(comparison, "PARTS", ())
    assert comparison.kept(0, 1) == first and comparison.kept(0, 2) == {}
    assert first["equal recipes, 60 good and 60 defective images"]["missed: interval holds 0"] in (0, 0.3333, 0.6667, 1)


def test_committed_figures_keep_the_promise() -> None:
    """Coverage 90 to 97 % at five seeds, hardly any false verdict at 0, and 6 points always found."""
    result = json.loads((record.RESULTS / "comparison.json").read_text())
    mean = {arm.removeprefix("statistics: "): {k: float(np.mean(v)) for k, v in told.items()} for arm, told in result["arms"].items()}
    for points in (0, 2, 6):
        assert 0.9 <= mean[f"{points} points, 5 seeds"]["interval holds it"] <= 0.97
    assert mean["0 points, 5 seeds"]["better"] + mean["0 points, 5 seeds"]["worse"] <= 0.05
    assert mean["6 points, 5 seeds"]["better"] > 0.99 and mean["2 points, 5 seeds"]["worse"] < 0.005
    assert mean["open after 5 seeds, with so many more"]["settled"] > 0.5
