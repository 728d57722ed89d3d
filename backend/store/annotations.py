"""What people noted at a moment and on a line ("roll changed"): the marks of every chart over time, and the table beside it.

A note is an inline run `note`. It is changed by a later one that names it (`of`), and taken away by a later one that says `removed`;
nothing is overwritten, and each of these can be taken back. `of` is the id of the first note, also after several changes.
"""

from datetime import datetime
from typing import Any

import pandas as pd

from backend.store.database import Database
from backend.store.engineering import frame

# The newest word on each note; `at` is the moment it speaks of and `day` its day as it was typed, `said` when that was said.
CURRENT = """
SELECT coalesce(nullif((config->>'$.of'), ''), event_id) AS note_id,
       max_by(coalesce(try_cast((config->>'$.at') AS TIMESTAMPTZ), "at"), ("at", event_id)) AS "at",
       max_by(coalesce((config->>'$.line'), ''), ("at", event_id)) AS line,
       max_by(coalesce((config->>'$.text'), ''), ("at", event_id)) AS text,
       max_by(coalesce(nullif((config->>'$.by'), ''), "by", ''), ("at", event_id)) AS "by",
       max_by(coalesce(try_cast((config->>'$.removed') AS BOOLEAN), FALSE), ("at", event_id)) AS removed, count(*) > 1 AS edited,
       max_by((config->>'$.at')[:10], ("at", event_id)) AS day, max("at") AS said
FROM events WHERE recipe = 'note' AND NOT undone AND plant = $plant GROUP BY 1
"""


def annotations(db: Database, plant: str, line: str = "", since: datetime | None = None, until: datetime | None = None) -> pd.DataFrame:
    """number (1, 2, ... in the order of time: the marker's), note_id, at (UTC), line ('': all), text, by, edited; of a line with those of
    the whole plant, between two moments, both in it."""
    values: dict[str, Any] = {"plant": plant, "line": line, "since": since, "until": until}
    return frame(db, f"""
        SELECT row_number() OVER (ORDER BY "at", note_id) AS number, note_id, "at", line, text, "by", edited FROM ({CURRENT})
        WHERE NOT removed AND ($line = '' OR line IN ('', $line)) AND ($since::TIMESTAMPTZ IS NULL OR "at" >= $since)
          AND ($until::TIMESTAMPTZ IS NULL OR "at" <= $until) ORDER BY 1""", values)
