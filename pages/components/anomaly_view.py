"""One anomaly model, looked at: how well it tells good from defective on the locked test, its limit or why it has none; and its
training, open or finished.

Reads the bundle's model.json and the run's curves. Knows nothing of how it learns or looks.
"""

import json
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import model_view, stages, text, training_curves, words

FIGURES = {
    "image_auroc": ("Image AUROC", "Take a defective and a good test picture: how often the defective one scores higher. 1: always."),
    "pixel_auroc": ("Pixel AUROC", "The same for pixels inside and outside the outlined defects."),
    "pixel_ap": ("Pixel AP", "How much of what the heat map marks lies in outlined defects, over all limits. Small defects make it low."),
    "aupro": ("AUPRO", "How much of each outlined defect is covered while little else is; each defect counts the same, whatever its size.")}


def overview(models: pd.DataFrame) -> pd.DataFrame:
    """The table of models, as shown."""
    rows = list(models.itertuples(index=False))
    return pd.DataFrame({
        "In use": [bool(m.promoted) for m in rows], "Name": [words.short(m.name, 30) for m in rows],
        "Dataset": [words.short(m.dataset or "–", 24) for m in rows], "Made": [words.when(m.created_at) for m in rows],
        **{label: [model_view.block(m).get(name) for m in rows] for name, (label, _) in FIGURES.items()},
        "Unusual from": [(told(str(m.run_id)).get("thresholds") or {}).get("unusual") for m in rows],
        "Image side": [m.imgsz for m in rows]})


def told(run_id: str) -> dict[str, Any]:
    """The bundle's own words; nothing where it is not there, or not yet."""
    try:
        head: dict[str, Any] = json.loads(jobs.run_file(run_id, "model/model.json").read_bytes())
    except jobs.NotFoundError:
        return {}
    return head


def show(model: Any) -> None:
    """Limit, figures on the locked test, settings."""
    model_view.title(model)
    head = told(model.run_id)
    limit(head)
    figures(model_view.block(model), head)
    with st.expander("Settings", icon=":material/tune:"):
        model_view.asked(model, st)


def limit(head: dict[str, Any]) -> None:
    """From which score on a picture is called unusual; or why there is no such limit, and what helps."""
    at, share = (head.get("thresholds") or {}).get("unusual"), (head.get("settings") or {}).get("false_rejects")
    if at is not None:
        rate = f", so that of good parts about {text.percent(share)} are called so" if share else ""
        held = (head.get("chosen") or {}).get("normals")
        kept = f" It was set on {text.count(held)} good pictures kept from training." if held else ""
        if (head.get("chosen") or {}).get("like_learned"):
            kept += " It also learned from pictures that nearly equal some of these, so it may call more good parts unusual than said."
        st.markdown(f":material/straighten: A picture is called unusual from a score of **{at:.3g}** on{rate}.{kept} "
                    "Another limit can be kept on an inspected batch.")
    elif head:
        st.warning(f"It has no limit, so it calls nothing unusual by itself. {words.plain(head.get('threshold_refused', ''), 400)} Or set "
                   "a limit by eye: inspect a batch with it and move the limit in the histogram there.", icon=":material/straighten:")


def figures(test: dict[str, Any], head: dict[str, Any]) -> None:
    grid = st.grid(4, min_column_width=140)
    for name, (label, about) in FIGURES.items():
        grid.metric(label, words.number(test.get(name)), border=True, help=about)
    if not test:
        st.caption("It was not scored: its dataset has no test pictures.")
        return
    good = int(test.get("images", 0)) - int(test.get("defective", 0))
    lacking = "" if test.get("image_auroc") is not None else " Figures need good and defective test pictures, those of pixels outlines."
    st.caption(f"On {text.count(test.get('images', 0))} locked test pictures, {text.count(test.get('defective', 0))} of them defective and "
               f"{text.count(good)} good, of the dataset {words.plain(head.get('dataset') or '–')}.{lacking}")


def live(status: jobs.RunStatus, points: pd.DataFrame) -> None:
    """A training: what it came to, the preview, the curves."""
    if status.state == "completed":
        head = told(status.run_id)
        limit(head)
        figures((head.get("metrics") or {}).get("test") or {}, head)
        if again := (status.result.get("reused") or {}).get("training"):
            st.caption(f":material/recycling: Its weights are those of {_called(again)}: only what follows training was asked anew, so "
                       "there are no curves of its own.")
    diffusion, normal = stages.of_stage(points, "diffusion"), points[points["name"].isin(list(training_curves.NORMAL))]
    if looked(status):
        preview(status.run_id)
    elif len(diffusion):
        stages.preview(status.run_id)
    if len(normal):
        training_curves.show(normal, status.run_id)
    elif status.is_open and diffusion.empty:
        st.skeleton(240)
        st.caption("Curves begin after the first steps.")
    if len(diffusion):
        with st.expander("The diffusion model that makes its defects", expanded=normal.empty, key=f"first_{status.run_id}"):
            training_curves.show(diffusion, f"first_{status.run_id}")


def _called(run_id: str) -> str:
    """Name and moment of a training, where it is still there."""
    try:
        run = jobs.status(run_id)
    except jobs.NotFoundError:
        return "an earlier training"
    return f"the training {words.plain(str(run.config.get('name', '')), 60)}, {words.when(run.started_at)}"


def looked(status: jobs.RunStatus) -> bool:
    """Has it drawn a preview of its own? It does so at every quarter of its steps, which come last; until then the picture in the run
    is of the diffusion model."""
    steps = int(status.config["steps"])
    return status.state == "completed" or bool(status.total) and status.step >= status.total - steps + max(1, steps // 4)


def preview(run_id: str) -> None:
    try:
        picture = jobs.run_file(run_id, "samples.png").read_bytes()
    except jobs.NotFoundError:
        return
    st.markdown("**What it sees:** the last column should come to look like the one before it")
    st.image(picture, width=520, alt="Rows of a good picture, the same with a made defect, the defect's outline, what the model marks")
    st.caption("Each row, from left to right: a good picture; the same with a made defect; where that defect is; what the model marks.")
