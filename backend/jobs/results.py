"""What the database knows, for pages and the command line: each question bound to this process's one database.

Tables come as pandas DataFrames; `revision` grows whenever an answer may have changed. See `store.queries`, `store.lines`,
`store.engineering`, `store.comparison`, `store.contests`, `store.worth` and `store.decisions` for what each column means. Pictures and
downloads are made in `pictures` and `export`.
"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from backend.jobs import alarms as alarming
from backend.jobs import audit, checks, conditions, control, house, signals, software, trial, two_periods
from backend.jobs.needs import acting, reading
from backend.quality import rates, stages
from backend.quality import rules as chart_rules
from backend.quality import spc as chart_kinds
from backend.quality.reference import Hint
from backend.records import Filters
from backend.store import annotations as noted
from backend.store import comparison, contests, decisions, engineering, lines, named, queries, shadow, worth
from backend.store.comparison import Threshold


def revision() -> int:
    """Grows with everything that is taken in or judged anew."""
    return house.database().revision


def counted(plant: str, line: str = "") -> int:
    """Grows where a verdict on the plant, or on this line of it, has changed: counts that were asked for since then still hold."""
    db = house.database()
    return db.revision if db.turn() is not None else db.counted(plant, line)


def known(plant: str) -> int:
    """Grows where anything that is known of the plant has changed: answers about it alone that were asked for since then still hold."""
    return house.database().known(plant)


# the plant -----------------------------------------------------------------------------------------------------------------


def plants() -> dict[str, int]:
    return queries.plants(house.database())


def elsewhere() -> dict[str, int]:
    return queries.elsewhere(house.database())


def lines_elsewhere(at: datetime | None = None) -> pd.DataFrame:
    """`lines.lines_now` of every plant that is looked after elsewhere, and `plant`: the worst line of each plant first."""
    each = [lines.lines_now(house.database(), plant, at).assign(plant=plant) for plant in elsewhere()]
    return pd.concat([frame for frame in each if len(frame)] or [pd.DataFrame(columns=[*lines.COLUMNS, "plant"])], ignore_index=True)


def choices(plant: str) -> dict[str, Any]:
    return queries.choices(house.database(), plant)


def lines_now(plant: str, at: datetime | None = None) -> pd.DataFrame:
    """With what control charts and open alarms say of them, and `chart`: the id of the chart that speaks, '' where none does."""
    found = signals.raised(lines.lines_now(house.database(), plant, at), control.charts(house.database(), plant, at))
    return alarming.raised(found, alarming.alarms(house.database(), plant), at or datetime.now(UTC))


def totals(filters: Filters) -> dict[str, Any]:
    return queries.totals(house.database(), filters)


def per_million(filters: Filters) -> rates.Rate:
    """Defective parts in a million with their exact interval, where parts have numbers; else `n` is 0."""
    defective, units = named.named(house.database(), filters)
    return rates.ppm(units, defective)


def compared(now: Filters, then: Filters, by: str = "", called: str = "before") -> two_periods.Compared:
    """Two periods side by side; `by` as `two_periods.compared` has it."""
    return two_periods.compared(house.database(), now, then, by, called)


def trend(filters: Filters, by: str = "day", split: str = "") -> pd.DataFrame:
    return queries.trend(house.database(), filters, by, split)


def unusual_trend(filters: Filters, by: str = "day") -> pd.DataFrame:
    return queries.unusual_trend(house.database(), filters, by)


def breakdown(filters: Filters, by: str) -> pd.DataFrame:
    return queries.breakdown(house.database(), filters, by)


def pareto(filters: Filters) -> pd.DataFrame:
    return queries.pareto(house.database(), filters)


def images(filters: Filters, order: str = "newest", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    return queries.images(house.database(), filters, order, limit, offset)


def images_count(filters: Filters) -> int:
    return queries.images_count(house.database(), filters)


def inspection(inspection_id: int) -> dict[str, Any]:
    return queries.inspection(house.database(), inspection_id)


def detections(inspection_ids: list[int]) -> pd.DataFrame:
    return queries.detections(house.database(), inspection_ids)


def review_queue(plant: str, limit: int = 30, kind: str = "doubtful") -> pd.DataFrame:
    """`kind`: doubtful, or disagreement."""
    return queries.review_queue(house.database(), plant, limit, kind)


# control charts ------------------------------------------------------------------------------------------------------------


def control_charts(plant: str, at: datetime | None = None) -> list[control.Watched]:
    """The charts that people saved, the worst first."""
    return control.charts(house.database(), plant, at)


def control_trial(plant: str, chart: stages.SavedChart, at: datetime | None = None) -> trial.Trial:
    """What a chart that is being made would be; without `since` a period is proposed."""
    return trial.trial(house.database(), plant, chart, at)


def control_choices() -> dict[str, dict[str, str]]:
    """kinds and rules of control charts, in words."""
    return {"kinds": {name: kind.words for name, kind in chart_kinds.KINDS.items()},
            "rules": {name: rule.words for name, rule in chart_rules.RULES.items()}}


# alarms, checks, notes at a moment -----------------------------------------------------------------------------------------


def alarms(plant: str) -> list[alarming.Alarm]:
    """Open ones first, then the newest."""
    return alarming.alarms(house.database(), plant)


def targets(plant: str) -> list[alarming.Target]:
    return alarming.targets(house.database(), plant)


def target_outcomes(plant: str, at: datetime | None = None) -> list[conditions.Judged]:
    """Each target with the newest shift that is over."""
    return conditions.judged(house.database(), plant, at)


def alert_rules(plant: str) -> list[alarming.AlertRule]:
    return alarming.rules(house.database(), plant)


def standstills(plant: str) -> list[dict[str, Any]]:
    return alarming.standstills(house.database(), plant)


def software_checks(limit: int = 30) -> list[software.Software]:
    """Of all models, the newest first. From run directories: a check that runs is among them."""
    return software.software(limit)


def imaging(plant: str) -> list[checks.Imaging]:
    """Master parts, line by line."""
    return checks.imaging(house.database(), plant)


def hint(plant: str, line: str = "", alarm: bool = True) -> Hint:
    """Where to look first: process, camera or model?"""
    return checks.hint(house.database(), plant, line, alarm)


def annotations(plant: str, line: str = "", since: datetime | None = None, until: datetime | None = None) -> pd.DataFrame:
    return noted.annotations(house.database(), plant, line, since, until)


# shift reports -------------------------------------------------------------------------------------------------------------


def shifts(plant: str, days: int = 14) -> list[dict[str, Any]]:
    """Shifts that may be reported on, the newest first: day, shift, start, units, under_way."""
    from backend.jobs import shift_report

    return shift_report.listed(house.database(), plant, days)


def shift_report(plant: str, day: date, shift: str) -> tuple[str, str]:
    """The report of a shift, made now: its file name, and its HTML. Raises NotFoundError."""
    from backend.jobs import shift_report as reports

    return reports.html(house.database(), plant, day, shift)


# decisions -----------------------------------------------------------------------------------------------------------------


def rules(plant: str, product: str = "") -> pd.DataFrame:
    return decisions.rules(house.database(), plant, product)


def unusual_rule(plant: str, product: str = "") -> dict[str, Any] | None:
    return decisions.unusual_rule(house.database(), plant, product)


def reviews(plant: str) -> pd.DataFrame:
    """Who said what of a picture is that person's and the admin's; to others the reviewer has no name."""
    rows, who = decisions.reviews(house.database(), plant), acting()
    return rows if who.may("users") else rows.assign(reviewer=rows["reviewer"].where(rows["reviewer"] == who.name, ""))


def named_kinds(plant: str) -> pd.DataFrame:
    return decisions.named_kinds(house.database(), plant)


def notes(plant: str, line: str = "") -> pd.DataFrame:
    return decisions.notes(house.database(), plant, line)


def changes(plant: str, limit: int = 20, recipe: str = "") -> pd.DataFrame:
    return decisions.changes(house.database(), plant, limit, recipe)


def put_to_use(plant: str) -> pd.DataFrame:
    return decisions.put_to_use(house.database(), plant)


def calendar(plant: str = "real") -> dict[str, Any]:
    return decisions.calendar_now(house.database(), plant)


# batches, datasets, models -------------------------------------------------------------------------------------------------


def settled(run_id: str) -> bool:
    """Whether all of an ended run is in."""
    return engineering.settled(house.database(), run_id)


def batch(run_id: str) -> dict[str, Any]:
    return engineering.batch(house.database(), run_id)


def refused(run_id: str) -> pd.DataFrame:
    return engineering.refused(house.database(), run_id)


def raw_scores(run_id: str) -> pd.DataFrame:
    return engineering.raw_scores(house.database(), run_id)


def anomaly_scores(run_id: str) -> pd.DataFrame:
    return engineering.anomaly_scores(house.database(), run_id)


def damaged() -> pd.DataFrame:
    return engineering.damaged(house.database())


def datasets() -> pd.DataFrame:
    return engineering.datasets(house.database())


def dataset_counts(snapshot_id: str) -> pd.DataFrame:
    return engineering.dataset_counts(house.database(), snapshot_id)


def box_sizes(snapshot_id: str) -> pd.DataFrame:
    return engineering.box_sizes(house.database(), snapshot_id)


def dataset_images(snapshot_id: str, split: str = "", class_name: str = "", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    return engineering.dataset_images(house.database(), snapshot_id, split, class_name, limit, offset)


def labels(snapshot_id: str, image_ids: list[str]) -> pd.DataFrame:
    return engineering.labels(house.database(), snapshot_id, image_ids)


def duplicates(snapshot_id: str) -> pd.DataFrame:
    return engineering.duplicates(house.database(), snapshot_id)


def models(kind: str = "detector") -> pd.DataFrame:
    """`kind`: detector (classifiers too, which stand in its place), classifier, anomaly, or '' for all."""
    return engineering.models(house.database(), kind)


def metrics(run_id: str) -> pd.DataFrame:
    return engineering.metrics(house.database(), run_id)


# looking back: the last days with another model ----------------------------------------------------------------------------


def to_look_back_on(plant: str, line: str = "", product: str = "", days: int = 14) -> dict[str, Any]:
    return shadow.available(house.database(), plant, line, product, days)


def look_back(run_id: str) -> dict[str, Any]:
    return shadow.look_back(house.database(), run_id)


def changed(run_id: str, turn: str, line: str = "", kind: str = "", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    """`turn`: reject or pass."""
    return shadow.changed(house.database(), run_id, turn, line, kind, limit, offset)


def anew(run_id: str, inspection_id: int) -> pd.DataFrame:
    """What the other model of a look-back found in one picture."""
    return shadow.boxes(house.database(), run_id, inspection_id)


# trainings side by side ----------------------------------------------------------------------------------------------------


def scored_runs() -> pd.DataFrame:
    return comparison.scored_runs(house.database())


def curves(run_ids: list[str], names: tuple[str, ...] = ()) -> pd.DataFrame:
    return comparison.curves(house.database(), run_ids, names)


def curve_names(run_ids: list[str]) -> list[str]:
    return comparison.curve_names(house.database(), run_ids)


def looks(test_set_id: str) -> pd.DataFrame:
    return comparison.looks(house.database(), test_set_id)


def test_images(run_id: str) -> pd.DataFrame:
    return comparison.test_images(house.database(), run_id)


def contest(run_a: str, run_b: str, threshold_a: Threshold = None, threshold_b: Threshold = None, kind: str = "all", class_name: str = "",
            limit: int = 24, offset: int = 0) -> tuple[pd.DataFrame, dict[str, int]]:
    """A page of images of one kind, and the number of each kind: a_only, b_only, both, neither, a_false, b_false, all."""
    return contests.contest(house.database(), run_a, run_b, threshold_a, threshold_b, kind, class_name, limit, offset)


def boxes_of(run_id: str, image_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a training's model found in a test image, and what is there."""
    return contests.boxes_of(house.database(), run_id, image_id)


def pr_curve(run_id: str, class_name: str = "") -> pd.DataFrame:
    return worth.pr_curve(house.database(), run_id, class_name)


def confusion(run_id: str, threshold: Threshold = None) -> pd.DataFrame:
    return worth.confusion(house.database(), run_id, threshold)


def operating(run_id: str, class_name: str = "") -> pd.DataFrame:
    return worth.operating(house.database(), run_id, class_name)


# pictures and downloads ----------------------------------------------------------------------------------------------------


def picture(inspection_id: int | None = None, image_id: str | None = None, boxes: bool = True, width: int | None = None,
            threshold: float | dict[str, float] | None = None, format: str = "jpeg", snapshot_id: str = "") -> bytes:
    """An encoded picture with its defects drawn; of a dataset (image_id alone) with its labels: those of this snapshot, else of the newest
    that has it. Raises NotFoundError."""
    from backend.jobs import pictures

    return pictures.picture(house.database(), inspection_id, image_id, boxes, width, threshold, format, snapshot_id)


def heat(inspection_id: int, width: int | None = None, opacity: float = 0.6, boxes: bool = False, format: str = "jpeg") -> bytes:
    """An encoded picture with what its anomaly model saw laid over it; `boxes`: with its defects drawn too. Raises NotFoundError."""
    from backend.jobs import pictures

    return pictures.heat(house.database(), inspection_id, width, opacity, boxes, format)


def looked_back(run_id: str, inspection_id: int, whose: str = "both", boxes: bool = True, width: int | None = None,
                format: str = "jpeg") -> bytes:
    """An encoded picture with the defects that the record says (was), that the other model of a look-back says (would), or both, the
    record first. Raises NotFoundError."""
    from backend.jobs import pictures

    return pictures.looked_back(house.database(), run_id, inspection_id, whose, boxes, width, format)


def synthetic_picture(run_id: str, file: str, width: int | None = None, what: str = "result", format: str = "jpeg") -> bytes:
    """An encoded picture of a synthetic set: its result, its mask, the original it was made from, or (outlined) the result with its labels.

    Raises NotFoundError, ConfigError, ImageError.
    """
    from backend.jobs import gallery

    return gallery.picture(run_id, file, width, what, format)


def export(run_id: str, form: str) -> bytes | Path:
    """A batch as csv, parquet or coco (bytes), or as a zip of pictures with boxes (a temporary file). Raises ConfigError, NotFoundError."""
    audit.write("export", f"{run_id} as {form}")
    from backend.jobs import export as exports

    return exports.export(house.database(), run_id, form)


reading(globals())
