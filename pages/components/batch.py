"""One batch and what was found in it: summary, filters, the what-if threshold, the gallery, the refused files.

Redrawn while its run is open; rows keep the order in which they came, so that nothing jumps under the pointer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import image_viewer, oddity, plant, run_panel, slider, veil, whatif, words
from pages.components.cached import cached

MOST = 10_000      # pictures of one batch that the gallery holds; more are logged all the same
SEEN = ["inspection_id", "file_name", "captured_at", "line", "product", "lot", "camera", "counted", "why", "is_defective", "top_confidence",
        "anomaly_score", "is_unusual"]
ORDERS = {"came": "As they came", "surest": "Surest first", "unsure": "Least sure first"}
ODDEST = {"oddest": "Most unusual first"}                      # where an anomaly model looked
UNKNOWN = "Good, but unusual"


@dataclass(frozen=True)
class Batch:
    """What the gallery, the slider and the large view share."""

    run_id: str
    plant: str
    product: str
    rows: pd.DataFrame          # facts with the verdict under `rules`
    passing: pd.DataFrame       # scores that pass `rules`
    rules: whatif.Rules         # today's, or with the threshold on the slider
    today: whatif.Rules
    kinds: list[str]
    tried: whatif.Tried | None  # what stands on the slider, None while it is off
    odd: oddity.Odd | None      # what an anomaly model said, None where none looked


def load(status: jobs.RunStatus) -> Batch:
    """The batch as the slider has it: draw the slider first."""
    rows, raw, scores = _logged(status.run_id, status.plant, jobs.results.revision())
    product = str(rows["product"].iloc[0]) if len(rows) else str(status.config.get("product", ""))
    today = _today(status, product, raw)
    kinds, tried = sorted({*today, *raw["class_name"].unique()}), slider.tried()
    rules = whatif.moved(today, kinds, tried) if tried else today
    passing = whatif.found(raw, rules)
    judged = whatif.verdicts(rows, passing)
    if not tried:                                           # today's verdict is the store's, not ours
        judged["defective"] = rows["is_defective"].astype(bool)
    odd = oddity.of(scores)
    return Batch(status.run_id, status.plant, product, oddity.marked(judged, odd), passing, rules, today, kinds, tried, odd)


@st.cache_data(max_entries=6, show_spinner=False)      # a few MB each, one more at every ingest: not for the pages' common cache
def _logged(run_id: str, plant: str, revision: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """What is in the store of this batch, in the order in which it came: facts, raw scores, scores of an anomaly model."""
    filters = jobs.Filters(plant=plant, run_id=run_id, counted=False)
    rows = jobs.results.images(filters, "newest", MOST, 0)[SEEN].sort_values("inspection_id", ignore_index=True)
    return rows, jobs.results.raw_scores(run_id), jobs.results.anomaly_scores(run_id)


@st.cache_data(max_entries=400, show_spinner=False)    # scores never change, so no revision: a new row redraws no old picture
def _drawn(inspection_id: int, width: int, boxes: bool, at: dict[str, float]) -> bytes:
    drawn: bytes = jobs.results.picture(inspection_id=inspection_id, width=width, boxes=boxes, threshold=at, format="jpeg")
    return drawn


def _today(status: jobs.RunStatus, product: str, raw: pd.DataFrame) -> whatif.Rules:
    """The rules in force for this batch. `rules` knows the model in use; thresholds of another are read off one find of each kind."""
    today = whatif.rules_of(cached("rules", status.plant, product))
    one_each = cached("detections", raw.drop_duplicates("class_name")["inspection_id"].tolist())
    return {**today, **whatif.rules_of(one_each)}


def show(run_id: str, actions: Callable[[jobs.RunStatus], None]) -> None:
    """The batch of a run, and `actions(status)` once it is in."""
    try:
        status = jobs.status(run_id)
    except jobs.NotFoundError as error:
        words.sorry(error)
        return
    run_panel.show(run_id, partial(_body, actions=actions))
    if st.session_state.get("batch_open") is not None:      # the large view belongs to the page's body, not to a polling fragment
        batch = load(status)
        image_viewer.large(batch.rows, look(batch))


def _body(status: jobs.RunStatus, actions: Callable[[jobs.RunStatus], None]) -> None:
    """Everything below the run's head."""
    about = cached("batch", status.run_id)
    if not about["inspected"] and not about["refused"]:
        _nothing(status)
        return
    summary(about)
    refused(about, status.run_id)
    if about["inspected"]:
        if not run_panel.unsettled(status):
            actions(status)
        batch = tried(status)
        rows = chosen(batch)
        if batch.odd:
            with st.container(horizontal=True, vertical_alignment="center", key="batch_veil"):
                veil.controls("batch")
        image_viewer.gallery(rows, look(batch))


def tried(status: jobs.RunStatus) -> Batch:
    """Both sliders, then the batch as they have it, then what they changed."""
    before, stood = load(status), _sliders()
    threshold = st.container(border=True, key="what_if")
    limit = st.container(border=True, key="odd") if before.odd else threshold
    with threshold:
        slider.controls(before.kinds, before.today)
    with limit:
        if before.odd:
            oddity.controls(before.odd)
    batch = before if _sliders() == stood else load(status)
    with threshold:
        slider.outcome(batch)
    with limit:
        if batch.odd:
            oddity.outcome(batch, batch.odd)
    return batch


def _sliders() -> tuple[Any, ...]:
    """Where both stand: what `load` follows from, beside what is logged."""
    return slider.tried(), *(st.session_state.get(key) for key in ("odd_on", "odd_at"))


def _nothing(status: jobs.RunStatus) -> None:
    if status.is_open:
        st.skeleton(160)
    elif status.state == "completed":
        run_panel.awaited("inspect")
    elif status.state == "canceled":
        st.info("It was stopped before the first picture.", icon=":material/block:")


def summary(about: dict[str, Any]) -> None:
    """'37 of 360 defective · 3 not usable', then where the times came from and what counts."""
    st.subheader(headline(about), anchor=False)
    if not about["inspected"]:
        return
    kinds = sorted(about["by_class"].items(), key=lambda kv: -kv[1])
    lines = [" · ".join(f"{words.plain(k)} {n:,}" for k, n in kinds), unusual(about), counted(about), times(about["captured_sources"])]
    st.caption("  \n".join(line for line in lines if line))


def headline(about: dict[str, Any]) -> str:
    if not about["inspected"]:
        return f"None of {about['refused']:,} {'file' if about['refused'] == 1 else 'files'} could be used"
    text = f"{about['defective']:,} of {about['inspected']:,} defective"
    return f"{text} · {about['refused']:,} not usable" if about["refused"] else text


def unusual(about: dict[str, Any]) -> str:
    """What an anomaly model said, in pictures; '' where none looked."""
    if not about.get("anomaly_models"):
        return ""
    name = words.plain(", ".join(about["anomaly_models"]), 60)
    if about["unusual"] is None:
        return f"{name} scored them, but has no limit: nothing is called unusual."
    found = f"{about['unusual']:,} unusual to {name}"
    return f"{found}, {about['disagree']:,} of them good by the detector." if about["unusual"] else f"{found}."


def counted(about: dict[str, Any]) -> str:
    if not about["not_counted"]:
        return "All count in the plant's trends."
    why = "; ".join(f"{words.plain(reason)} ({n:,})" for reason, n in about["why"].items())
    return f"{about['counted']:,} count in the plant's trends, {about['not_counted']:,} do not: {why}"


def times(sources: Any) -> str:
    """Where the time of the pictures came from."""
    said = {"exif": "the camera's data", "file name": "the file name", "typed": "you", "arrival": "their arrival here", "demo": "the demo"}
    counts = dict(sources) if isinstance(sources, dict) else dict.fromkeys(sources, 0)
    parts = [said.get(s, words.plain(s)) + (f" ({n:,})" if n and len(counts) > 1 else "") for s, n in counts.items()]
    return f"Time of the pictures from {', '.join(parts)}. One picture is one part unless a pattern says otherwise." if parts else ""


def refused(about: dict[str, Any], run_id: str) -> None:
    if about["refused"]:
        n = about["refused"]
        with st.expander(f"{n:,} {'file was' if n == 1 else 'files were'} not usable", icon=":material/report:", key="refused",
                         expanded=not about["inspected"]):
            st.dataframe(cached("refused", run_id), hide_index=True, alt="Files that were not usable, with the reason", column_config={
                "file_name": st.column_config.TextColumn("File"), "reason": st.column_config.TextColumn("Why", width="large")})


def chosen(batch: Batch) -> pd.DataFrame:
    """Filter and sort; while nothing is chosen, the order of arrival."""
    shown = ["All", "Defective", "Good", *(["Unusual", UNKNOWN] if batch.odd and batch.odd.limit is not None else [])]
    above, row = st.container(), st.container(horizontal=True, vertical_alignment="bottom")
    with above if batch.odd else row:                        # five do not fit a phone beside others; by themselves they wrap
        verdict = st.segmented_control("Show", shown, default="All", required=True, key="batch_verdict")
    with row:
        kind = st.selectbox("Kind of defect", ["", *batch.kinds], key="batch_kind", width=180,
                            format_func=lambda k: words.short(k) or "All kinds")
        orders = ORDERS | (ODDEST if batch.odd else {})
        order = st.selectbox("Order", list(orders), format_func=orders.__getitem__, key="batch_order", width=190)
    rows = batch.rows
    if verdict != "All":
        good = ~rows["defective"]
        rows = rows[{"Defective": ~good, "Good": good, "Unusual": rows["unusual"], UNKNOWN: rows["unusual"] & good}[verdict]]
    if kind:
        rows = rows[rows["inspection_id"].isin(batch.passing.loc[batch.passing["class_name"] == kind, "inspection_id"])]
    if order == "oddest":
        rows = rows.sort_values("anomaly_score", ascending=False, kind="stable")
    elif order != "came":
        by = rows["top_confidence"] if order == "surest" else (rows["top_confidence"] - 0.5).abs()
        rows = rows.iloc[by.fillna(0).argsort(kind="stable")[::-1 if order == "surest" else 1]]
    if rows.empty:
        st.caption("No picture fits this choice.")
    return rows


def look(batch: Batch) -> image_viewer.Look:
    at = whatif.thresholds(batch.rules)

    def draw(i: Any, width: int, boxes: bool) -> bytes:
        return _drawn(i, width, boxes, at)

    def tools() -> image_viewer.Draw:
        gallery = veil.chosen("batch")
        return veil.over(draw, veil.controls("batch_large", gallery > 0, gallery), at)

    return image_viewer.Look("batch", "inspection_id", veil.over(draw, veil.chosen("batch"), at), verdict,
                             partial(details, odd=batch.odd), tools if batch.odd else None)


def verdict(row: Any) -> str:
    kind = f"{words.plain(row.kind, 24)} {100 * row.confidence:.0f} %" if row.kind else ""
    said = ":red-badge[Defective]" if row.defective else ":orange-badge[Minor]" if kind else ":green-badge[Good]"
    return " ".join(filter(None, (said, oddity.BADGE if row.unusual else "", kind)))


def details(row: Any, odd: oddity.Odd | None) -> None:
    """What is known about one picture, beside its large view."""
    st.markdown(verdict(row))
    if odd and pd.notna(row.anomaly_score):
        limit = "no limit is set" if odd.limit is None else f"unusual from {odd.limit:.3g}"
        st.markdown(f"How unlike good parts: **{row.anomaly_score:.3g}**, {limit}")
    facts = {"Taken": f"{plant.local(row.captured_at):%d %b %Y, %H:%M}", "Line": row.line,
             "Product": row.product, "Lot": row.lot, "Camera": row.camera,
             "Trends": "counted" if row.counted else f"not counted: {row.why}"}
    st.markdown("  \n".join(f"{k}: **{words.plain(v)}**" for k, v in facts.items() if v))
    boxes = cached("detections", [int(row.inspection_id)])
    if len(boxes):
        boxes = boxes.sort_values("confidence", ascending=False).head(50)
        st.dataframe(boxes[["class_name", "confidence", "passes"]], hide_index=True, alt="Finds in this picture", column_config={
            "class_name": "Kind", "confidence": st.column_config.NumberColumn("Confidence", format="%.2f"),
            "passes": st.column_config.CheckboxColumn("Counts today")})
