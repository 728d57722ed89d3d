"""Pictures from the future, by a camera clock that runs ahead: one of them must not make all others old."""

from datetime import UTC, datetime, timedelta

import pytest

from backend.store import labels, queries
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant

AHEAD = datetime.now(UTC) + timedelta(days=4000)


def test_the_last_day_is_one_that_has_come(db: Database) -> None:
    plant.batch([{}, {}, dict(captured_at=AHEAD)])
    ingest(db)
    known = queries.choices(db, "real")
    assert known["last_day"] == plant.NOON.date() and known["last_captured_at"] == plant.NOON + timedelta(minutes=1)


def test_a_plant_whose_clocks_are_all_ahead_still_has_a_last_day(db: Database) -> None:
    plant.batch([dict(captured_at=AHEAD)])
    ingest(db)
    assert queries.choices(db, "real")["last_captured_at"] == AHEAD


def test_doubtful_pictures_are_still_worth_a_look(db: Database) -> None:
    plant.model("m1", {"pits": 0.5})
    plant.batch([dict(boxes=[("pits", 0.48)]), dict(boxes=[("pits", 0.9)]), dict(captured_at=AHEAD)])
    ingest(db)
    assert queries.review_queue(db, "real")["top_confidence"].tolist() == pytest.approx([0.48, 0.9])
    assert len(labels.waiting(db, "real", "doubtful", 10)) == 2 and len(labels.waiting(db, "real", "rejected", 10)) == 1
    assert labels.waiting(db, "real", "missed", 10).empty
