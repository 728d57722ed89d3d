"""Units that people may read at random, in strata whose sizes are known; and what they said of those that were drawn.

A stratum is what the model said (passed or rejected) and how sure it was. Which units there are, and in which order they are drawn, is
asked once and then stands in the event `sample`, so that a rule that changes later moves no unit to another stratum. Of pictures that
were kept by lot those that lie on disk for another reason stand for no other. Knows nothing of rates: see jobs.sampling.
"""

import json
from datetime import date
from typing import Any

from backend.store.database import Database

NEAR = 0.1                  # of confidence: as near to its limit as this, a verdict is one that a little noise would have turned
RESERVE = 500               # units written down in each stratum; about 50 KB in all

_FRAME = """
WITH unit AS (
    SELECT f.unit, bool_or(f.is_defective) AS rejected, coalesce(min(f.margin), 1) AS margin, bool_or(coalesce(f.is_unusual, FALSE)) AS odd,
           min(coalesce(i.kept_share, 1)) AS share, list(f.inspection_id ORDER BY f.captured_at, f.inspection_id) AS views,
           bool_and(f.kept AND (coalesce(i.kept_share, 1) >= 1 OR
                    coalesce(try_cast('0x' || left(f.image_id, 8) AS UINTEGER) < i.kept_share * 4294967296, FALSE))) AS readable
    FROM facts f JOIN inspections i USING (inspection_id)
    WHERE f.plant = $plant AND f.counted AND f.production_day BETWEEN $since AND $until AND ($line = '' OR f.line = $line)
    GROUP BY f.unit),
placed AS (
    SELECT unit, rejected, views, readable,
           CASE WHEN odd AND NOT rejected THEN 'unlike good parts' WHEN margin <= $near THEN 'near the limit' ELSE 'clear' END
           || CASE WHEN share < 1 THEN ', few kept' ELSE '' END AS band
    FROM unit)
"""


def frame(db: Database, plant: str, since: date, until: date, line: str, seed: str) -> list[dict[str, Any]]:
    """The strata of a period, rejected ones first: rejected, band, units (how many there are), order (some of those that can be read, in
    the order in which they are drawn; each is the inspections of its views)."""
    values = dict(plant=plant, since=since, until=until, line=line, near=NEAR)
    with db.cursor() as cursor:
        strata = cursor.execute(_FRAME + "SELECT rejected, band, count(*) AS units FROM placed GROUP BY ALL ORDER BY rejected DESC, band",
                                values).dicts()
        drawn = cursor.execute(_FRAME + """
            SELECT rejected, band, views, row_number() OVER (PARTITION BY rejected, band ORDER BY hash($seed || ':' || unit)) AS place
            FROM placed WHERE readable QUALIFY place <= $reserve ORDER BY place""", {**values, "seed": seed, "reserve": RESERVE}).dicts()
    for one in strata:
        one["order"] = [d["views"] for d in drawn if (d["rejected"], d["band"]) == (one["rejected"], one["band"])]
    return strata


def samples(db: Database, plant: str) -> list[dict[str, Any]]:
    """Samples that were drawn and not taken back, the newest first: sample_id, at, by and what stands in the event, `wanted` as it was
    asked for last."""
    with db.cursor() as cursor:
        rows = cursor.execute("""SELECT run_id, "at", config, "by" FROM events WHERE recipe = 'sample' AND NOT undone AND plant = ?
                                 ORDER BY "at" DESC, event_id DESC""", [plant]).dicts()
    read = [dict(json.loads(row["config"]), sample_id=row["run_id"], at=row["at"], by=row["by"]) for row in rows]
    more: dict[str, list[int]] = {}
    for one in read:
        if "more_of" in one:
            more.setdefault(one["more_of"], one["wanted"])
    return [one | dict(wanted=more.get(one["sample_id"], one["wanted"])) for one in read if "more_of" not in one]


def reads(db: Database, sample_id: str) -> list[dict[str, Any]]:
    """What people said of units of a sample, the earliest first: run_id, at, unit (the inspection of its first view), verdict, class_name,
    reviewer."""
    with db.cursor() as cursor:
        return cursor.execute("""
            SELECT run_id, "at", try_cast((config->>'$.inspection_ids[0]') AS BIGINT) AS unit, (config->>'$.verdict') AS verdict,
                   coalesce((config->>'$.class_name'), '') AS class_name, coalesce((config->>'$.reviewer'), '') AS reviewer
            FROM events WHERE recipe = 'read' AND NOT undone AND (config->>'$.sample') = ? ORDER BY "at", event_id""", [sample_id]).dicts()


def models_of(db: Database, inspection_ids: list[int]) -> set[str]:
    """The models that judged these."""
    with db.cursor() as cursor:
        rows = cursor.execute("SELECT DISTINCT model_id FROM inspections WHERE inspection_id IN (SELECT unnest(?::BIGINT[]))",
                              [inspection_ids]).dicts()
    return {str(row["model_id"]) for row in rows}


def measured(db: Database, plant: str, model_id: str) -> dict[str, int] | None:
    """What somebody measured a model to do, on pieces of known truth: found, of_defective, passed, of_good; None where nobody did."""
    with db.cursor() as cursor:
        said = cursor.execute("""SELECT config FROM events WHERE recipe = 'ability' AND NOT undone AND plant = ?
                                 AND (config->>'$.model_id') = ? ORDER BY "at" DESC, event_id DESC LIMIT 1""", [plant, model_id]).one()
    return {k: int(json.loads(said)[k]) for k in ("found", "of_defective", "passed", "of_good")} if said else None
