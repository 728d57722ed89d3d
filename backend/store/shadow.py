"""What a look-back found: the last days as they were recorded, beside what another model makes of the very same pictures.

`was` is the verdict of the record, `would` that of the other model, both under the rules in force today: no verdict of a look-back
is kept, so a threshold that is moved restates it as it restates the record. Everything here counts pictures, not parts: of a part
with several views some may not be kept. Both models are put on the same pictures. A picture that was kept by lot stands for
1 / kept_share of its like; then the weights are fitted to what the record says of all pictures, kept or not, so that its rate is no
estimate (post-stratification: Holt and Smith, J. R. Statist. Soc. A 142, 1979): a disk cleared of good pictures does not mislead.

Intervals hold 19 times out of 20. That of a rate is Wilson's at the number of evenly weighted parts that the sample is worth (Kish,
Survey Sampling, 1965). That of a step is Bonett and Price's for paired shares (J. Educ. Behav. Stat. 37, 2012: two more pictures, one
changed each way, which stays honest where none or all changed), at the number that the variance between lots, and between parts, says
it is worth, never more than Kish's. One batch is one draw: where all pictures come from one or two lots, no interval knows the next.
"""

from datetime import UTC, datetime
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from backend import rundir
from backend.errors import ConfigError, NotFoundError
from backend.store import judging, queries
from backend.store.database import Cursor, Database
from backend.store.engineering import MODELS
from backend.store.lines import AHEAD
from backend.store.queries import Array

LEVEL = 0.05
TURNS = {"reject": "would AND NOT was", "pass": "was AND NOT would"}

# What counts, as `inspection.kept` chose it: a correction made since may have moved a picture out.
_COUNTED = """f.plant = $plant AND f.counted AND ($line = '' OR f.line = $line) AND ($product = '' OR f.product = $product)
    AND f.captured_at BETWEEN $since::TIMESTAMPTZ AND $until::TIMESTAMPTZ"""
_LOOKED = f"""
CREATE OR REPLACE TEMP TABLE looked AS
SELECT f.inspection_id, f.plant, f.product, s.model_id, s.boxes FROM facts f JOIN shadows s USING (plant, image_id)
WHERE s.run_id = $run AND s.why = '' AND {_COUNTED} AND ($only::BIGINT IS NULL OR f.inspection_id = $only)
"""
_ANEW = f"""
CREATE OR REPLACE TEMP TABLE anew AS
{judging.judged("looked", "(SELECT inspection_id, unnest(boxes, recursive := true) FROM looked)")}
"""
_PAIRED = f"""
SELECT f.*, 1 / i.kept_share::DOUBLE AS weight, f.is_defective AS was, coalesce(n.defects, 0) > 0 AS would,
       coalesce(n.top_class, '') AS would_class, n.class_confidence AS would_confidence
FROM looked JOIN facts f USING (inspection_id) JOIN inspections i USING (inspection_id)
LEFT JOIN ({judging.summed("anew")}) n USING (inspection_id)
"""
_KINDS = """
SELECT inspection_id, class_name, bool_or(was) AS was, bool_or(would) AS would FROM (
    SELECT inspection_id, class_name, TRUE AS was, FALSE AS would FROM defects SEMI JOIN looked USING (inspection_id)
    WHERE action = 'reject'
    UNION ALL SELECT inspection_id, class_name, FALSE, TRUE FROM anew WHERE passes AND action = 'reject')
GROUP BY inspection_id, class_name
"""


def available(db: Database, plant: str, line: str = "", product: str = "", days: int = 14) -> dict[str, Any]:
    """What there is to look back on: pictures that count in the last days with data, kept ones, since and until (days; None without)."""
    values = {"plant": plant, "line": line, "product": product, "until": datetime.now(UTC) + AHEAD, "days": days}
    with db.cursor() as cursor:
        return cursor.execute("""
            WITH counting AS (SELECT production_day AS day, kept FROM facts WHERE plant = $plant AND counted AND captured_at <= $until
                              AND ($line = '' OR line = $line) AND ($product = '' OR product = $product))
            SELECT count(*) AS pictures, count(*) FILTER (kept) AS kept, min(day) AS since, max(day) AS until
            FROM counting WHERE day > (SELECT max(day) FROM counting) - $days::INTEGER""", values).dicts()[0]


def look_back(db: Database, run_id: str) -> dict[str, Any]:
    """A look-back in figures, as far as it has come. Raises NotFoundError where it has not begun.

    figures: of `step`, and was_low, was_high, would_low, would_high; pictures (that count in these days), rejected (by the record), and
        what became of them: there, planned, unkept, gone, damaged, learned; lot (looked at, and kept by lot: they stand for others);
        first_day, last_day, line, product, plant, model_id, model_name; models ({name: pictures} of the record); by_hand (kinds whose
        limits a person set); judged and agreed (changed pictures that a person has judged, and how often as the other model does).
    days: bucket, pictures, was, was_low, was_high, would, would_low, would_high.
    lines, kinds: value, and what `step` says; their intervals hold for all rows together.
    """
    head = _head(run_id)
    with db.cursor() as cursor:
        _look(cursor, head)
        rows = cursor.execute(f"SELECT inspection_id, production_day::TIMESTAMP AS bucket, line, unit, "
                              f"if(lot = '', unit, hash(line, product, lot)) AS lot, weight, was, would, review FROM ({_PAIRED}) "
                              "ORDER BY captured_at, inspection_id").frame()
        kinds = cursor.execute(_KINDS).frame()
        figures = head | _about(cursor, head)
    for name in ("unit", "lot"):
        rows[name] = pd.factorize(rows[name])[0]
    _calibrate(rows, figures)
    return {"figures": figures | step(rows) | _rates(rows) | _judged(rows), "days": _days(rows),
            "lines": _each({str(name): of for name, of in rows.groupby("line")}), "kinds": _each(_by_kind(rows, kinds))}


def changed(db: Database, run_id: str, turn: str, line: str = "", kind: str = "", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    """Pictures whose verdict would change, to `reject` or to `pass`: columns of facts, weight, would_class, would_confidence; the surest
    first. `kind`: for which the model that rejects them does."""
    if turn not in TURNS:
        raise ConfigError(f"{turn!r} is none of {', '.join(TURNS)}.")
    that = "would" if turn == "reject" else "top"
    with db.cursor() as cursor:
        _look(cursor, _head(run_id))
        return cursor.execute(f"SELECT * FROM ({_PAIRED}) WHERE {TURNS[turn]} AND ($line = '' OR line = $line) AND ($kind = '' OR "
                              f"{that}_class = $kind) ORDER BY {that}_confidence DESC, captured_at DESC, inspection_id "
                              "LIMIT $limit OFFSET $offset", {"line": line, "kind": kind, "limit": limit, "offset": offset}).frame()


def boxes(db: Database, run_id: str, inspection_id: int) -> pd.DataFrame:
    """What the other model found in one picture, as `queries.detections` has it of the record."""
    with db.cursor() as cursor:
        _look(cursor, _head(run_id), int(inspection_id))
        return cursor.execute("SELECT inspection_id, class_name, confidence, x1, y1, x2, y2, side, action, threshold, min_side, passes "
                              "FROM anew ORDER BY confidence DESC, class_name, x1, y1").frame()


# how rows become figures ---------------------------------------------------------------------------------------------------


def step(rows: pd.DataFrame, share: float = LEVEL) -> dict[str, Any]:
    """looked (pictures), was and would (rates), difference with low and high, more and fewer (pictures that only the other model, or only
    the record, rejects); None where nothing was looked at. `share`: how often the interval may be wrong.

    `rows`: was, would, weight, and the numbers, from 0, of the unit and of the lot that a picture is of."""
    more, fewer = (rows["would"] & ~rows["was"]).to_numpy(bool), (rows["was"] & ~rows["would"]).to_numpy(bool)
    counts = dict(looked=len(rows), more=int(more.sum()), fewer=int(fewer.sum()))
    if rows.empty:
        return counts | dict.fromkeys(("was", "would", "difference", "low", "high"))
    weights = rows["weight"].to_numpy(float)
    w = weights / weights.sum()
    up, down, n = float(w[more].sum()), float(w[fewer].sum()), _worth(rows, w, more * 1.0 - fewer)
    p, q = (n * up + 1) / (n + 2), (n * down + 1) / (n + 2)
    half = NormalDist().inv_cdf(1 - share / 2) * ((p + q - (p - q) ** 2) / (n + 2)) ** 0.5
    return counts | dict(was=float(w[rows["was"]].sum()), would=float(w[rows["would"]].sum()), difference=up - down,
                         low=max(p - q - half, -1.0), high=min(p - q + half, 1.0))


def _calibrate(rows: pd.DataFrame, figures: dict[str, Any]) -> None:
    """Let the sample hold as many pictures that the record rejects, and passes, as there were: that is known of all, also of those that are
    gone. Where one of the two has none here, weights stay as they are."""
    there = {True: figures["rejected"], False: figures["pictures"] - figures["rejected"]}
    here = {was: float(rows.loc[rows["was"] == was, "weight"].sum()) for was in there}
    if all(here.values()):
        rows["weight"] *= rows["was"].map({was: there[was] / here[was] for was in there})


def _worth(rows: pd.DataFrame, w: Array, change: Array) -> float:
    """On how many independent, evenly weighted pictures a step rests."""
    mean = float((w * change).sum())
    pulls = w * (change - mean)                                                  # of each picture on the step
    sums, many = zip(*(_added(rows, of, pulls) for of in ("unit", "lot")), strict=True)
    variance = max(float(np.square(s).sum()) * n / max(n - 1, 1) for s, n in zip(sums, many, strict=True))
    alone = float((w * np.square(change)).sum()) - mean**2                       # of one picture
    return min(1 / float(np.square(w).sum()), alone / variance) if variance > 0 else _kish(rows)


def _kish(rows: pd.DataFrame) -> float:
    """How many evenly weighted parts these pictures are worth; views of one part count as one."""
    weights, _ = _added(rows, "unit", rows["weight"].to_numpy(float))
    return float(weights.sum() ** 2 / np.square(weights).sum())


def _added(rows: pd.DataFrame, of: str, values: Array) -> tuple[Array, int]:
    """Values added up by unit or lot, and how many of these there are."""
    numbers = rows[of].to_numpy(np.int64)
    numbers = numbers - numbers.min()
    return np.bincount(numbers, values), int(np.count_nonzero(np.bincount(numbers)))


def _rates(rows: pd.DataFrame) -> dict[str, Any]:
    """was and would with low and high."""
    found: dict[str, Any] = {}
    n = _kish(rows) if len(rows) else 0.0
    for name in ("was", "would"):
        rate = float(np.average(rows[name], weights=rows["weight"])) if len(rows) else None
        low, high = queries.wilson(np.array([n * (rate or 0.0)]), np.array([n]))
        found |= {name: rate, f"{name}_low": float(low[0]), f"{name}_high": float(high[0])}
    return found


def _days(rows: pd.DataFrame) -> pd.DataFrame:
    names = ["bucket", "pictures", *(f"{name}{end}" for name in ("was", "would") for end in ("", "_low", "_high"))]
    return pd.DataFrame([dict(bucket=day, pictures=len(of), **_rates(of)) for day, of in rows.groupby("bucket")], columns=names)


def _by_kind(rows: pd.DataFrame, kinds: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """For each kind of defect, was and would by that kind alone."""
    found, at = {}, pd.Index(rows["inspection_id"]).get_indexer(pd.Index(kinds["inspection_id"]))
    for name in kinds["class_name"].unique():
        sides = {side: np.zeros(len(rows), bool) for side in ("was", "would")}
        for side, hit in sides.items():
            hit[at[(kinds["class_name"] == name).to_numpy() & kinds[side].to_numpy(bool)]] = True
        found[str(name)] = rows.assign(**sides)
    return found


def _each(groups: dict[str, pd.DataFrame]) -> pd.DataFrame:
    names = ["value", "looked", "was", "would", "difference", "low", "high", "more", "fewer"]
    return pd.DataFrame([dict(value=name, **step(of, LEVEL / len(groups))) for name, of in sorted(groups.items())], columns=names)


def _judged(rows: pd.DataFrame) -> dict[str, Any]:
    """judged, agreed: where two verdicts differ, a person's agrees with one of them."""
    said = rows[(rows["was"] != rows["would"]) & rows["review"].isin(["defective", "good"])]
    return dict(judged=len(said), agreed=int(((said["review"] == "defective") == said["would"]).sum()))


# how a question becomes SQL ------------------------------------------------------------------------------------------------


def _head(run_id: str) -> dict[str, Any]:
    """What the recipe wrote down before it began."""
    path = rundir.run_path(run_id) / "shadow.json"
    if not path.exists():
        raise NotFoundError("This look-back has not begun yet.")
    return dict(rundir.read_json(path), run_id=run_id)


def _values(head: dict[str, Any]) -> dict[str, Any]:
    return {name: head[name] for name in ("plant", "line", "product", "since", "until")}


def _look(cursor: Cursor, head: dict[str, Any], only: int | None = None) -> None:
    """The tables `looked` (pictures, or one of them) and `anew` (what the other model found in them, by the rules in force)."""
    cursor.execute(_LOOKED, {**_values(head), "run": head["run_id"], "only": only})
    cursor.execute(_ANEW)


def _about(cursor: Cursor, head: dict[str, Any]) -> dict[str, Any]:
    """What the figures rest on, besides the pictures themselves."""
    found = cursor.execute(f"SELECT count(*) AS pictures, count(*) FILTER (is_defective) AS rejected, min(production_day) AS first_day, "
                           f"max(production_day) AS last_day FROM facts f WHERE {_COUNTED}", _values(head)).dicts()[0]
    whys = cursor.execute("SELECT count(*) FILTER (why = 'gone') AS gone, count(*) FILTER (why NOT IN ('', 'gone')) AS damaged "
                          "FROM shadows WHERE run_id = ?", [head["run_id"]]).dicts()[0]
    lot = cursor.execute("SELECT count(*) FROM looked JOIN inspections i USING (inspection_id) WHERE i.kept_share < 1").one()
    models = cursor.execute(f"SELECT coalesce(m.name, f.model_id) AS name, count(*) AS n FROM looked JOIN facts f USING (inspection_id) "
                            f"LEFT JOIN ({MODELS}) m ON m.model_id = f.model_id GROUP BY 1 ORDER BY 2 DESC, 1").dicts()
    keys = (f"SELECT DISTINCT l.plant, l.product, l.model_id, k.class_name FROM looked l, (SELECT unnest(classes) AS class_name "
            f"FROM ({MODELS}) WHERE model_id = $model) k")
    by_hand = cursor.execute(f"SELECT DISTINCT class_name FROM ({judging.rules(keys)}) WHERE source = 'policy' ORDER BY 1",
                             {"model": head["model_id"]}).column()
    return found | {"gone": head["gone"] + whys["gone"], "damaged": whys["damaged"], "lot": lot, "by_hand": by_hand,
                    "models": {m["name"]: m["n"] for m in models}}
