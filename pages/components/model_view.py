"""One model, looked at: what it finds and misses on the locked test, its thresholds, its settings; and two models side by side.

A classifier stands among the detectors, as it does in production; what only it has is in `classifier_view`. Compares only what was
scored on the same locked test: that of one snapshot, or of two that differ in what is learned from alone.
"""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import arithmetic, charts, classifier_view, person, text, words
from pages.components.cached import cached

FILES = ("model.onnx", "model.json")
PROGRAM = ("infer.py", "tiles.py")           # uses the model without this product; lies beside the engine
# label, figure, and whether more of it is good
COMPARED: tuple[tuple[str, str, Literal["normal", "inverse"]], ...] = (
    ("Missed defects", "missed_images", "inverse"), ("False rejects", "false_rejects", "inverse"), ("mAP50", "map50", "normal"),
    ("mAP50–95", "map50_95", "normal"), ("Accuracy", "accuracy", "normal"), ("Accuracy, kinds alike", "balanced_accuracy", "normal"))
FOUND = {"detector": ("AP50", "ap50"), "classifier": ("Recognized", "class_accuracy")}       # per kind of defect: label, figure
UNSCORED = "It was not scored on a locked test."


def usable(models: pd.DataFrame) -> pd.DataFrame:
    """Models whose files are here: the demo plant's history names some that never were."""
    def there(run_id: str) -> bool:
        try:
            return not run_id or all(jobs.run_file(run_id, f"model/{name}") for name in FILES)
        except jobs.NotFoundError:
            return False
    return models[models["run_id"].map(there).astype(bool)].reset_index(drop=True)


def block(model: Any, part: str = "test") -> dict[str, Any]:
    """The figures of one split; empty where there are none."""
    found = (model.metrics or {}).get(part)
    return found if isinstance(found, dict) else {}


def missed(figures: dict[str, Any]) -> float | None:
    """Share of the defective pictures that would pass as good."""
    value = figures.get("missed_images")
    return None if value is None else float(value)


def per_kind(model: Any, part: str = "test") -> pd.DataFrame:
    """kind, AP50 (of a classifier Recognized), missed: one row per kind."""
    figures, (label, name) = block(model, part), FOUND[model.kind]
    missing, found = figures.get("missed") or {}, figures.get(name) or {}
    return pd.DataFrame({"kind": list(model.classes), label: [found.get(k) for k in model.classes],
                         "Missed": [missing.get(k) for k in model.classes]}).astype({label: float, "Missed": float})


def overview(models: pd.DataFrame) -> pd.DataFrame:
    """The table of models, as shown."""
    rows = list(models.itertuples(index=False))
    return pd.DataFrame({
        "In use": [bool(m.promoted) for m in rows], "Name": [words.short(m.name, 30) for m in rows],
        "Dataset": [words.short(m.dataset or "–", 24) for m in rows], "Made": [words.when(m.created_at) for m in rows],
        **classifier_view.overview(models),
        "mAP50 test": [block(m).get("map50") for m in rows], "mAP50 val": [block(m, "val").get("map50") for m in rows],
        "Missed defects": [missed(block(m)) for m in rows], "Image side": [m.imgsz for m in rows]})


def show(model: Any) -> None:
    """Figures on the locked test, per kind, thresholds, settings."""
    title(model)
    figures(model)
    rows, found = per_kind(model), FOUND[model.kind][0]
    if rows[found].notna().any():
        how = "found (AP50)" if model.kind == "detector" else "the share of its pictures that are recognized"
        st.markdown(f"**Per kind:** {how}, and the share of pictures showing it that would pass as good")
        bars(rows, str(model.model_id), found)
    if model.kind == "classifier":
        classifier_view.confusion(block(model))
    arithmetic.line(model)
    with st.expander("Thresholds and settings", icon=":material/tune:"):
        settings(model)


def title(model: Any) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(words.plain(model.name), anchor=False, width="content")
        if model.promoted:
            st.badge("In use", color="green", icon=":material/check:")


def figures(model: Any) -> None:
    test, val = block(model), block(model, "val")
    grid = st.grid(4, min_column_width=140)
    grid.metric("Missed defects", _percent(missed(test)), border=True,
                help="Share of the defective test pictures that it would pass as good, at its thresholds.")
    grid.metric("False rejects", _percent(test.get("false_rejects")), border=True,
                help="Share of the good test pictures that it would reject; known only where the test split has good pictures.")
    if model.kind == "classifier":
        classifier_view.accuracy(grid, test, val)
        st.caption(classifier_view.scored(test, model.dataset) if test else UNSCORED)
        return
    grid.metric("mAP50 on test", words.number(test.get("map50")), border=True,
                help="Area under the precision-recall curve at half overlap, the mean over kinds, on the locked test pictures.")
    grid.metric("mAP50 on val", words.number(val.get("map50")), border=True, help="The same on the pictures its thresholds were chosen on.")
    if test:
        st.caption(f"{text.count(test.get('images', 0))} locked test pictures with {text.count(test.get('boxes', 0))} labels, "
                   f"of the dataset {words.plain(model.dataset or '–')}. mAP50–95 {words.number(test.get('map50_95'))}.")
    else:
        st.caption(UNSCORED)


def _percent(value: Any) -> str:
    return "–" if value is None else text.percent(float(value))


def bars(rows: pd.DataFrame, name: str, found: str = "AP50") -> None:
    long = rows.melt("kind", var_name="what", value_name="value").dropna()
    figure = charts.stacked(long, "kind", "value", "what").update_layout(barmode="group")
    figure.update_yaxes(range=[0, 1], tickformat=".0%").update_traces(hovertemplate="%{x}: %{y:.1%}")
    charts.show(figure, f"kinds_{name}", f"{found} and share missed per kind of defect")


def settings(model: Any) -> None:
    """Thresholds per kind, what the training was told, and the ids that pin both down."""
    left, right = st.columns(2)
    at = thresholds(model)
    if at:
        left.dataframe(pd.DataFrame({"Kind": list(at), "Counts from confidence": list(at.values())}), hide_index=True, alt="Thresholds",
                       column_config={"Counts from confidence": st.column_config.NumberColumn(format="%.2f")})
        left.caption("Chosen on the validation pictures; rules on the Inspection page go before them.")
    asked(model, right)


def asked(model: Any, place: Any) -> None:
    """What the training was told, and the ids that pin it down."""
    chosen = {k: v for k, v in (model.settings or {}).items() if v is not None}
    place.dataframe(pd.DataFrame({"Setting": list(chosen), "Value": [words.short(v, 120) for v in chosen.values()]}), hide_index=True,
                    alt="Settings of the training")
    place.caption(f"Model {words.plain(model.model_id)} · dataset version {words.plain(model.snapshot_id or '–')}")


def thresholds(model: Any) -> dict[str, float]:
    """From the deployed bundle; nothing for the model that comes with the program, which keeps its own."""
    if not model.run_id:
        return {}
    return dict(json.loads(jobs.run_file(model.run_id, "model/model.json").read_bytes()).get("thresholds", {}))


def comparable(new: Any, current: Any) -> str:
    """'' where both were scored on the same locked test, else why they cannot be compared."""
    if not block(new) or not block(current):
        lacking = new if not block(new) else current
        return f"{words.plain(lacking.name)} has no figures on a locked test, so the two cannot be compared."
    if new.kind != current.kind:
        finder, namer = (words.plain(m.name) for m in ((new, current) if new.kind == "detector" else (current, new)))
        return f"{finder} says where a defect is, {namer} only what a picture shows: their figures do not compare."
    if new.snapshot_id != current.snapshot_id and not _one_test(new, current):
        sets = [words.plain(m.dataset or "another dataset") for m in (new, current)]
        return (f"{words.plain(new.name)} was scored on the test pictures of {sets[0]}, {words.plain(current.name)} on those of {sets[1]}: "
                "their figures do not compare. Train both on the same dataset to see which is better.")
    return ""


def _one_test(*models: Any) -> bool:
    """Whether detectors of several snapshots were scored on the same test pictures, as with and without synthetic ones to learn from."""
    known = cached("scored_runs")
    tests = [set(known.loc[known["model_id"] == m.model_id, "test_set_id"].dropna()) - {""} for m in models]
    return all(tests) and len(set.union(*tests)) == 1


def compare(new: Any, current: Any, place: str) -> None:
    """New against current, on the same locked test. `place` tells two on one page apart."""
    why_not = comparable(new, current)
    if why_not:
        st.info(why_not, icon=":material/balance:")
        return
    a, b = block(new), block(current)
    st.markdown(f"**{words.plain(new.name)}** against **{words.plain(current.name)}**, in use now, on the same "
                f"{text.count(a.get('images', 0))} locked test pictures")
    grid = st.grid(3, min_column_width=130)
    for label, name, better in COMPARED:
        x, y = a.get(name), b.get(name)
        if x is not None and y is not None:
            grid.metric(label, *_change(float(x), float(y), better == "inverse"), delta_color=better, border=True)
    found = FOUND[new.kind][0]
    st.markdown(f"**{found} per kind**")
    rows = pd.concat([per_kind(m)[["kind", found]].assign(model=name) for m, name in ((new, "new"), (current, "in use"))])
    figure = charts.stacked(rows.dropna(), "kind", found, "model").update_layout(barmode="group")
    figure.update_yaxes(range=[0, 1]).update_traces(hovertemplate="%{x}: %{y:.3f}")
    charts.show(figure, f"compare_{place}", f"{found} per kind, new model and model in use")
    st.caption("One training with one seed: a small difference may be chance.")


def _change(new: float, old: float, share: bool) -> tuple[str, str]:
    """The new figure, and the step from the old one."""
    return (text.percent(new), f"{100 * (new - old):+.1f} points") if share else (words.number(new), f"{new - old:+.3f}")


def bundle(run_id: str) -> Callable[[], bytes]:
    """Network, description, and the program that uses them, in one zip, made when asked for."""
    def make() -> bytes:
        jobs.exported(f"model of {run_id}")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as z:
            for name in FILES:
                z.write(jobs.run_file(run_id, f"model/{name}"), name)
            for name in PROGRAM:
                z.write(Path(jobs.__file__).parents[1] / "inspection" / name, name)
        return packed.getvalue()
    return person.keeping(make)
