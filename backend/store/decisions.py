"""What people decided, as the pages show it: rules in force, reviews, notes, the calendar, and what can be taken back.

How decisions turn into verdicts is `facts`; how they come in is `ingest`.
"""

import json
from collections import Counter
from typing import Any

import pandas as pd

from backend import rundir
from backend.store import alerts, calendar, judging
from backend.store.database import Cursor, Database
from backend.store.engineering import MODELS, PROMOTED, frame

JUDGED = {"accept": "accepted", "reject": "rejected", "again": "to be made again", "": "without a verdict again"}


def rules(db: Database, plant: str, product: str = "") -> pd.DataFrame:
    """class_name, action, threshold, min_side, source (model | policy): what applies to each class of the model in use."""
    with db.cursor() as cursor:
        keys = ("SELECT $plant AS plant, $product AS product, model_id, unnest(classes) AS class_name "
                f"FROM ({MODELS}) WHERE model_id = ({PROMOTED['detector']})")
        return cursor.execute(f"SELECT class_name, action, threshold, min_side, source FROM ({judging.rules(keys)}) ORDER BY class_name",
                              {"plant": plant, "product": product}).frame()


def unusual_rule(db: Database, plant: str, product: str = "") -> dict[str, Any] | None:
    """model_id, model (its name), action, threshold (None where there is none), source (model | policy) of the anomaly model in use;
    None where none is."""
    with db.cursor() as cursor:
        keys = f"SELECT $plant AS plant, $product AS product, model_id FROM ({MODELS}) WHERE model_id = ({PROMOTED['anomaly']})"
        rows = cursor.execute(f"SELECT model_id, m.name AS model, action, threshold, source FROM ({judging.unusual_rules(keys)}) "
                              f"JOIN ({MODELS}) m USING (model_id)", {"plant": plant, "product": product}).dicts()
    return rows[0] if rows else None


def reviews(db: Database, plant: str) -> pd.DataFrame:
    """run_id (to undo it), at, inspection_id, verdict, class_name, reviewer, is_defective (what the model said), line, file_name."""
    return frame(db, """
        SELECT e.run_id, e."at", f.inspection_id, (e.config->>'$.verdict') AS verdict,
               coalesce((e.config->>'$.class_name'), '') AS class_name, coalesce((e.config->>'$.reviewer'), e."by", '') AS reviewer,
               f.is_defective, f.line, f.file_name
        FROM events e JOIN facts f ON f.inspection_id = try_cast((e.config->>'$.inspection_id') AS BIGINT)
        WHERE e.recipe = 'review' AND NOT e.undone AND e.plant = ? ORDER BY e."at" DESC, e.event_id DESC""", [plant])


_NAMED_KINDS = """
WITH odd AS (SELECT run_id, inspection_id, file_name FROM facts
             WHERE plant = $plant AND kept AND is_unusual AND NOT is_defective AND review = 'defective'),
said AS (SELECT try_cast((config->>'$.inspection_id') AS BIGINT) AS inspection_id, coalesce((config->>'$.class_name'), '') AS class_name,
                "at", event_id FROM events WHERE recipe = 'review' AND NOT undone AND plant = $plant),
newest AS (SELECT * FROM said JOIN odd USING (inspection_id)
           QUALIFY row_number() OVER (PARTITION BY inspection_id ORDER BY "at" DESC, event_id DESC) = 1)
SELECT class_name, inspection_id, run_id, file_name FROM newest WHERE class_name <> '' ORDER BY "at" DESC, event_id DESC
"""


def named_kinds(db: Database, plant: str) -> pd.DataFrame:
    """class_name, inspection_id, run_id (of the inspection), file_name of kept pictures, unusual by today's limit, in which no detection
    rejects anything and of which a person's newest word names a defect; the newest first, however many other verdicts followed."""
    return frame(db, _NAMED_KINDS, {"plant": plant})


def notes(db: Database, plant: str, line: str = "") -> pd.DataFrame:
    """kind (note | acknowledge), at (the moment it speaks of), line, text, by; a note without a line belongs to all."""
    return frame(db, """
        SELECT recipe AS kind, coalesce(try_cast(coalesce((config->>'$.at'), (config->>'$.day')) AS TIMESTAMPTZ), "at") AS "at",
               coalesce((config->>'$.line'), '') AS line, coalesce((config->>'$.text'), '') AS text, "by"
        FROM events WHERE recipe IN ('note', 'acknowledge') AND NOT undone AND plant = $plant
          AND ($line = '' OR coalesce((config->>'$.line'), '') IN ('', $line))
        ORDER BY 2 DESC, event_id DESC""", {"plant": plant, "line": line})


def changes(db: Database, plant: str, limit: int = 20, recipe: str = "") -> pd.DataFrame:
    """run_id, at, text, by, undone, kind (of a promotion: whose place the model took, detector | anomaly; else ''): what people decided and
    can take back, for this plant or for all; without the demo's history, and without what was said of pictures
    one by one, made ones and those of a random sample. With `recipe`, changes of that kind alone."""
    with db.cursor() as cursor:
        rows = cursor.execute("""
            SELECT run_id, "at", recipe, config, "by", undone FROM events
            WHERE event_id = run_id AND recipe <> 'undo' AND "by" <> 'installation'
              AND (plant = $plant OR recipe IN ('calendar', 'promote'))
              AND ($recipe = recipe OR $recipe = '' AND recipe NOT IN ('judge', 'read', 'alarm', 'alarm-over', 'alert-test'))
            ORDER BY event_id DESC LIMIT $limit""", {"plant": plant, "limit": limit, "recipe": recipe}).dicts()
        rows = told(cursor, rows)
    return pd.DataFrame(rows, columns=["run_id", "at", "text", "by", "undone", "kind"])


_PUT_TO_USE = """
WITH made AS (SELECT * FROM events WHERE recipe = 'promote' AND event_id = run_id AND "by" <> 'installation'),
back AS (SELECT (config->>'$.run_id') AS run_id, min("at") AS "at" FROM events WHERE recipe = 'undo' GROUP BY 1)
SELECT "at", recipe, config, FALSE AS undo FROM made
UNION ALL SELECT back."at", recipe, config, TRUE FROM made JOIN back USING (run_id) WHERE undone ORDER BY "at", undo
"""


def put_to_use(db: Database, plant: str) -> pd.DataFrame:
    """at, text: when another detector began to judge this plant's pictures, in the order of time. A promotion that was taken back counts
    too, and so does the moment of that: in between it judged. Nothing of plants whose models are not in use here."""
    with db.cursor() as cursor:
        rows = told(cursor, cursor.execute(_PUT_TO_USE).dicts()) if plant == "real" else []
    said = [dict(at=r["at"], text=f"Taken back: {r['text']}" if r["undo"] else r["text"]) for r in rows if r["kind"] == "detector"]
    return pd.DataFrame(said, columns=["at", "text"])


def told(cursor: Cursor, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events (recipe, config as JSON text) with text and kind, as `changes` has them."""
    known = {m["model_id"]: m for m in cursor.execute(f"SELECT model_id, name, kind FROM ({MODELS})").dicts()}
    for row in rows:
        config = json.loads(row["config"])
        model = known.get(config.get("model_id") or "", {})
        row["text"] = tell(row["recipe"], config | model)
        row["kind"] = rundir.place_of(config | model) if row["recipe"] == "promote" else ""
    return rows


def tell(recipe: str, config: dict[str, Any]) -> str:
    """A decision as a plain sentence; where it names a model, `config` holds that model's name and kind."""
    ids = config.get("inspection_ids") or []
    pictures = f"{len(ids):,} picture{'s' if len(ids) != 1 else ''}" if ids else "a whole batch"
    on = f" on line {config['line']}" if config.get("line") else ""
    match recipe:
        case "promote":
            what = {"anomaly": "Anomaly model", "classifier": "Classifier"}.get(str(config.get("kind")), "Model")
            return f"{what} {config.get('name') or 'unknown'} was put to use."
        case "policy":
            return _policy(config)
        case "correct":
            fields = ", ".join(f"{k.replace('_', ' ')} to {v or 'none'}" for k, v in (config.get("fields") or {}).items())
            return f"Details of {pictures} were corrected: {fields}."
        case "exclude":
            return f"Took {pictures} out of trends{': ' + config['reason'] if config.get('reason') else ''}."
        case "include":
            return f"Put {pictures} into trends."
        case "judge":
            said = Counter((config.get("verdicts") or {}).values())
            told = [f"{n:,} {JUDGED[verdict]}" for verdict, n in said.items() if verdict in JUDGED]
            return f"Made pictures: {', '.join(told) or 'nothing said'}."
        case "review":
            kind = f" ({config['class_name']})" if config.get("class_name") else ""
            return f"A picture was judged {config.get('verdict', '')}{kind}."
        case "sample" | "read" | "ability" | "label":
            return _looked(recipe, config)
        case "calendar":
            shifts = ", ".join(f"{s.get('name')} {s.get('start')}–{s.get('end')}" for s in config.get("shifts") or [])
            return f"The calendar was set: {config.get('time_zone', 'UTC')}, {shifts or 'no shifts'}."
        case "report-plan":
            sent = f", sent to {', '.join(map(str, config.get('channels') or []))}" if config.get("channels") else ""
            return f"Shift reports: {f'made after each shift{sent}' if config.get('on', True) else 'not made by themselves'}."
        case "chart" | "retire" | "explain":
            return _charted(recipe, config)
        case "target" | "alert" | "standstill" | "alarm-seen" | "alarm-rest" | "channel":
            return alerts.tell(recipe, config)
        case "note" if config.get("removed"):
            return f"A note{on} was taken away."
        case "acknowledge":
            return f"Known{on} since {config.get('day', '')}: {config.get('text', '')}"
        case _:
            return f"Note{on}: {config.get('text', '')}"


def _looked(recipe: str, config: dict[str, Any]) -> str:
    """Of people who looked for themselves: a random sample, an answer in it, the model measured elsewhere, boxes drawn."""
    match recipe:
        case "sample" if "more_of" in config:
            return "More parts were asked for, to be looked at by people."
        case "sample":
            of = f" of {config['line']}" if config.get("line") else ""
            return f"A random sample{of}, {config.get('since')} to {config.get('until')}, was drawn for people to look at."
        case "read":
            return f"A part of the random sample was judged {config.get('verdict', '')}."
        case "ability":
            return (f"The model was measured: it found {config.get('found')} of {config.get('of_defective')} defective parts and passed "
                    f"{config.get('passed')} of {config.get('of_good')} good ones.")
        case _:
            n, boxes = len(config.get("pictures") or []), sum(len(p.get("boxes") or []) for p in config.get("pictures") or [])
            return f"{n:,} picture{'s' if n != 1 else ''} labelled, {boxes:,} box{'es' if boxes != 1 else ''}."


def _charted(recipe: str, config: dict[str, Any]) -> str:
    """Of a control chart: saved, put away, or an alarm of it explained."""
    what = ", ".join(filter(None, (str(config.get(n) or "") for n in ("line", "product", "characteristic"))))
    if recipe == "explain":
        return f"What stood out on {what}: {config.get('text', '')}"
    limits = "limits were frozen" if config.get("limits") else "made, without limits so far"
    return f"Control chart of {what}: {'put away' if recipe == 'retire' else limits}."


def _policy(config: dict[str, Any]) -> str:
    what = config.get("class_name") or "All defects"
    where = f" on {config['product']}" if config.get("product") else ""
    if config.get("class_name") == "unusual":                # a score without a unit, of a model that finds and rejects nothing
        least = f" from score {float(config['threshold']):.4g}" if config.get("threshold") is not None else ""
        where += f" by {config.get('name') or 'a model that is gone'}" if config.get("model_id") else ""
        return f"Unusual pictures{where}: {'not looked for' if config.get('action') == 'ignore' else f'called so{least}'}."
    verb = {"ignore": "ignored", "minor": "noted as minor", "reject": "rejected"}.get(str(config.get("action")), "rejected")
    least = f" from {float(config['threshold']):.0%}" if config.get("threshold") is not None else ""
    size = f", {config['min_side']:g} pixels or more" if config.get("min_side") else ""
    return f"{what[:1].upper()}{what[1:]}{where}: {verb}{least}{size}."


def calendar_now(db: Database, plant: str = "real") -> dict[str, Any]:
    """time_zone, day_start, shifts as in the `calendar` event."""
    with db.cursor() as cursor:
        return calendar.current(cursor, plant).to_json()
