"""The benchmark of the comparison page at size: its data folder is one that the store takes in, and its questions have answers."""

from pathlib import Path

import numpy as np
import pytest

from backend import rundir
from backend.store import comparison, contests, scan, worth
from backend.store.database import Database
from backend.store.ingest import ingest
from tests.benchmarks import comparison_size as size


def test_every_question_has_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path))
    monkeypatch.setattr(scan, "demo_assets", lambda: tmp_path / "no-bundle")
    rng = np.random.default_rng(0)
    size.build(rng, runs=24, epochs=2, small=(10, 40), large=(20, 60))
    db = Database()
    try:
        ingest(db)
        asked = size.questions(db, rng)
        for ask in asked.values():
            ask()
        runs = comparison.scored_runs(db)
        assert len(asked) == 15 and runs["scored"].all() and runs["test_set_id"].value_counts().to_dict() == {"small": 22, "large": 2}
        assert set(size.measured(asked["list of runs"], 1)) == {"ms, median", "ms, 95 of 100", "core ms, median"}

        # what a question finds is what was planted
        pair = runs[runs["test_set_id"] == "large"]["run_id"].tolist()
        rows = rundir.rows(rundir.run_path(pair[0]), "predictions").to_pandas()
        passing = rows[rows["confidence"] >= np.float32(0.5)]
        images, counts = contests.contest(db, *pair, 0.5, 0.5, limit=100)
        assert counts["all"] == len(images) == 20 and images["found_a"].sum() == (passing["hit_box"] >= 0).sum()
        at_half = worth.operating(db, pair[0]).set_index("threshold").loc[0.5]
        assert images["false_a"].sum() == (passing["hit_box"] < 0).sum() == at_half["false"] and at_half["found"] == images["found_a"].sum()
    finally:
        db.close()
