"""A model that is put to use, or back to use, judges pictures of the last days once more, so that its step is known apart from the process.

Without it a chart could only say that another inspector took over: `store.spc.step` finds the look-back and `quality.stages` moves the old
limits by what it came to, until 20 subgroups are in. A look-back that a person made before serves as well, where it is of the whole plant
and of pictures of the last days that the model before judged. Knows nothing of what it finds.
"""

from datetime import UTC, datetime

from backend import rundir
from backend.config import Shadow
from backend.jobs import runs
from backend.store import shadow
from backend.store.database import Database
from backend.store.lines import AHEAD

_THERE = """
WITH kept_ AS (SELECT image_id, model_id, captured_at, production_day FROM facts
               WHERE plant = $plant AND counted AND kept AND captured_at <= $until),
late AS (SELECT * FROM kept_ WHERE production_day > (SELECT max(production_day) FROM kept_) - $days::INTEGER AND model_id <> $new),
before AS (SELECT image_id FROM late WHERE model_id = (SELECT arg_max(model_id, captured_at) FROM late))
SELECT NOT EXISTS (SELECT 1 FROM before) OR EXISTS (
    SELECT 1 FROM shadows s JOIN runs r USING (run_id) SEMI JOIN before b USING (image_id)
    WHERE s.plant = $plant AND s.why = '' AND r.recipe = 'shadow' AND r.state = 'completed' AND (r.result->>'$.model_id') = $new
    AND coalesce(r.config->>'$.line', '') = '' AND coalesce(r.config->>'$.product', '') = '')
"""
PICTURES = 5_000                       # minutes of work; the figures of most plants move by less than half a point beyond it


def begin(db: Database, model_id: str, kind: str, plant: str = "real") -> str:
    """Queue one for a model that was just put to use; '' where there is one, nothing to look back on, or nothing that it could say."""
    if kind == "anomaly" or not shadow.available(db, plant)["kept"] or _there(db, model_id, plant):
        return ""
    folder = next((f for f in rundir.model_folders() if rundir.read_json(f / "model.json")["model_id"] == model_id), None)
    if folder is None:
        return ""
    name = str(rundir.read_json(folder / "model.json")["name"])
    return rundir.create("shadow", Shadow(model=model_id, name=name, pictures=PICTURES, plant=plant).to_json(), plant=plant).name


def _there(db: Database, model_id: str, plant: str) -> bool:
    """One is on its way, or has shown it pictures of the model before, or there are none of any other model."""
    jobs = [runs.job(p) for p in rundir.find("shadow") if runs.state(p)["state"] in rundir.OPEN_STATES]
    asked = [job["config"] for job in jobs if job["plant"] == plant]
    if any(c.get("model") == model_id and not c.get("line") and not c.get("product") for c in asked):
        return True
    with db.cursor() as cursor:
        return bool(cursor.execute(_THERE, dict(plant=plant, new=model_id, until=datetime.now(UTC) + AHEAD, days=Shadow().days)).one())
