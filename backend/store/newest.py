"""When each line's newest picture was taken, for those who watch the plant from outside. Asked every ten seconds: reads days, not years."""

from typing import Any

from backend.store.database import Database


def last_pictures(db: Database) -> list[dict[str, Any]]:
    """plant, line, at (UTC) of every line that has pictures; '' are those without one. A unit may have a picture of two days before its
    last, never more."""
    with db.cursor() as cursor:
        return cursor.execute("""
            WITH days AS (SELECT plant, line, max(production_day) AS day FROM tallies GROUP BY ALL)
            SELECT f.plant, f.line, max(f.captured_at) AS at FROM facts f JOIN days d ON f.plant = d.plant AND f.line = d.line
            WHERE f.production_day >= d.day - 2 AND f.production_day >= (SELECT min(day) FROM days) - 2
            GROUP BY ALL ORDER BY ALL""").dicts()
