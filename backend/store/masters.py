"""Readings of master parts: physical pieces that are photographed again and again, each shift, and never count in any rate.

score is the detector's surest box (0 where it found none), brightness and sharpness are of the picture itself. What is steady, `quality`
says; where to look when it is not, `jobs.checks`.
"""

import pandas as pd

from backend.store.database import Database
from backend.store.engineering import frame


def readings(db: Database, plant: str, line: str = "") -> pd.DataFrame:
    """line, bucket (plant time at which the shift began), piece, score, brightness, sharpness, model_id, inspection_id, captured_at; in the
    order of time. A picture that was taken out of the records by a person is left out."""
    return frame(db, """
        SELECT f.line, f.shift_start AS bucket, m.piece, coalesce(f.top_confidence, 0)::DOUBLE AS score, m.brightness::DOUBLE AS brightness,
               m.sharpness::DOUBLE AS sharpness, f.model_id, f.inspection_id, f.captured_at
        FROM masters m JOIN facts f USING (inspection_id)
        WHERE f.plant = $plant AND ($line = '' OR f.line = $line) AND f.why NOT LIKE 'taken out of trends%'
        ORDER BY f.line, f.captured_at, f.inspection_id""", {"plant": plant, "line": line})
