"""One dataset, looked at: how it was read, what is in it, what repeats across its splits, what was left out.

Shows a snapshot as `jobs.results` gives it; a snapshot never changes, so nothing here does either.
"""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import charts, dataset_join, image_viewer, plant, text, words
from pages.components.cached import cached

SPLITS = ["train", "val", "test", "unlabelled"]
PAGE = 24
LAYOUTS = {"voc": "Pascal VOC: an XML file beside each picture", "yolo": "YOLO: a text file with boxes for each picture",
           "coco": "COCO: one JSON file with all boxes", "mvtec": "MVTec AD: folders named good and by defect, masks under ground_truth",
           "mask-beside": "a mask beside each picture; boxes were drawn around its regions", "images": "pictures without labels",
           "class-folders": "a folder for each class; a label is of the whole picture",
           "synthetic": "images of a synthetic set with their masks"}
DRAWN = {"lists": "The split lists that came with it were used.", "folders": "Its folders name the splits."}


def recognized(head: Any) -> str:
    """What the importer took it for and why, and how the splits came about: two plain sentences."""
    said = told(head.run_id)
    by = "lot or unit and near-duplicate group" if "lot or unit" in said.get("grouped_by", ()) else "near-duplicate group"
    drawn = f"Splits were drawn 70/15/15 by {by}, with seed {head.seed}."
    why = said.get("explanation") or f"Read as {LAYOUTS.get(head.layout, head.layout)}."
    return f"{words.plain(why, 600)} {DRAWN.get(head.splits_from, drawn)}"


def told(run_id: str) -> dict[str, Any]:
    """What the import said of itself; nothing where its directory is gone."""
    try:
        return jobs.status(run_id).result
    except jobs.NotFoundError:
        return {}


def show(head: Any) -> None:
    """All about one dataset; `head` is its row of `results.datasets()`."""
    st.subheader(words.plain(head.name), anchor=False)
    st.caption(f"{recognized(head)} The test pictures are locked: nothing is ever chosen on them.")
    with st.container(horizontal=True, vertical_alignment="center"):
        plant.link("review", "Correct its labels", icon=":material/draw:", queue="Label", pictures=head.snapshot_id)
        if head.labels:
            dataset_join.button(head)
    grid = st.grid(4, min_column_width=130)
    for label, value in (("Pictures", head.images), ("Labels", head.labels), ("Kinds", len(head.classes)), ("Left out", head.refused)):
        grid.metric(label, text.count(value), border=True)
    if not head.labels:
        only_good(head.snapshot_id)
    repeats(head.snapshot_id)
    notes = [n for n in told(head.run_id).get("notes", []) if head.labels or "anomaly model" not in n]       # not twice
    st.caption("  \n".join(f":material/info: {words.plain(note, 600)}" for note in notes))
    content, sizes, pictures, left_out = st.tabs(["What is in it", "Box sizes", "Pictures", "Left out"])
    with content:
        counts(head.snapshot_id)
    with sizes:
        box_sizes(head.snapshot_id)
    with pictures:
        samples(head)
    with left_out:
        rejected(head)


def only_good(snapshot_id: str) -> None:
    """What a set without a labelled defect is good for."""
    st.info("No defect is labelled here. If all pictures show good parts, that is enough for an anomaly model: it learns what good parts "
            "look like and marks whatever is unlike them. A detector needs labelled defects. They can still join another dataset: choose "
            "that one, then Add pictures without labels.", icon=":material/lightbulb:")
    plant.link("training", "Train an anomaly model on it", icon=":material/arrow_forward:", kind="anomaly", dataset=snapshot_id)


def repeats(snapshot_id: str) -> None:
    """Pictures that stand in two splits: a model that saw them in training looks better on test than it is."""
    found = cached("duplicates", snapshot_id)
    if found.empty:
        st.caption(":material/verified: No picture stands in two splits, neither exactly nor nearly the same.")
        return
    said = " and ".join(f"{n:,} {words.plain(kind)}" for kind, n in found["kind"].value_counts().items())
    st.warning(f"{len(found):,} pictures repeat in another split ({said}): test figures may flatter a model that saw these in training.",
               icon=":material/content_copy:")
    with st.expander("Show them"):
        st.dataframe(found, hide_index=True, alt="Pictures that repeat across splits", column_config={
            "group_id": "Group", "kind": "How", "file_name": st.column_config.TextColumn("File", width="large"), "split": "Split"})


def counts(snapshot_id: str) -> None:
    rows = cached("dataset_counts", snapshot_id)
    if rows["boxes"].sum() == 0:
        st.info("There are no labels in it, so there is nothing to count by kind.", icon=":material/label_off:")
        return
    rows = rows.assign(class_name=rows["class_name"].replace("", "no label"))
    labelled = rows[rows["boxes"] > 0].sort_values("split", key=lambda s: s.map(SPLITS.index), kind="stable")
    charts.show(charts.stacked(labelled, "class_name", "boxes", "split"), f"counts_{snapshot_id}", "Labels per kind and split")
    wide = rows.pivot_table(index="class_name", columns="split", values=["images", "boxes"], aggfunc="sum", fill_value=0)
    told = [("images", split) for split in SPLITS] + [("boxes", split) for split in SPLITS[:3]]
    wide = wide[[column for column in told if column in wide.columns]]
    wide.columns = [f"{'Pictures' if what == 'images' else 'Labels'} {split}" for what, split in wide.columns]
    st.dataframe(wide.rename_axis("Kind"), alt="Pictures and labels per kind and split")
    if n := unlabelled(snapshot_id):
        st.caption(f"{n:,} {'picture has' if n == 1 else 'pictures have'} no label, which is not to say that nothing is wrong there: "
                   "diffusion models and taught backbones learn from such, detectors and anomaly models do not.")


def unlabelled(snapshot_id: str) -> int:
    """How many pictures nobody labelled."""
    rows = cached("dataset_counts", snapshot_id)
    return int(rows.loc[rows["split"] == "unlabelled", "images"].sum())


def box_sizes(snapshot_id: str) -> None:
    rows = cached("box_sizes", snapshot_id)
    if rows.empty:
        st.info("There are no boxes in it.", icon=":material/crop_free:")
        return
    rows = rows.sample(min(len(rows), 3000), random_state=0).assign(width=100 * rows["width"], height=100 * rows["height"])
    figure = charts.scatter(rows, "width", "height", "class_name", 380)
    figure.update_xaxes(title="Width, % of the picture", range=[0, 102]).update_yaxes(title="Height, % of the picture", range=[0, 102])
    charts.show(figure, f"sizes_{snapshot_id}", "Width and height of the boxes, as shares of the picture")
    small = float((rows[["width", "height"]].min(axis=1) < 3).mean())
    st.caption(f"{text.percent(small)} of the boxes are narrower than 3 % of their picture; a larger image side helps to find those.")


def samples(head: Any) -> None:
    """Pictures with their labels drawn, a page at a time."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        there = set(cached("dataset_counts", head.snapshot_id)["split"])
        split = st.segmented_control("Split", ["all", *(s for s in SPLITS if s in there)], default="all", required=True,
                                     key=f"split_{head.snapshot_id}")
        kind = st.selectbox("Kind", ["", *head.classes], format_func=lambda k: words.short(k) or "All kinds", width=200,
                            key=f"kind_{head.snapshot_id}")
    wanted = (head.snapshot_id, "" if split == "all" else split, kind)
    page = int(st.session_state.get(key := f"page_{wanted}", 1))
    rows = cached("dataset_images", *wanted, limit=PAGE, offset=PAGE * (page - 1))
    if rows.empty:
        st.caption("No picture fits this choice.")
        return
    image_viewer.gallery(rows, look(head.snapshot_id), PAGE)
    image_viewer.large(rows, look(head.snapshot_id))
    total = matching(*wanted)
    if total > PAGE:
        st.pagination(-(-total // PAGE), key=key, width="stretch")


@st.cache_data(max_entries=300, show_spinner=False)      # a snapshot never changes
def matching(snapshot_id: str, split: str, kind: str) -> int:
    """How many pictures there are to page through."""
    return len(jobs.results.dataset_images(snapshot_id, split, kind, limit=10_000_000))


def look(snapshot_id: str) -> image_viewer.Look:
    return image_viewer.Look(f"set_{snapshot_id[:8]}", "image_id", partial(_drawn, snapshot_id),
                             lambda row: f":gray-badge[{words.plain(row.split)}]", None)


@st.cache_data(max_entries=300, show_spinner=False)      # neither picture nor labels of a snapshot ever change
def _drawn(snapshot_id: str, image_id: str, width: int, boxes: bool) -> bytes:
    drawn: bytes = jobs.results.picture(image_id=image_id, boxes=boxes, width=width, snapshot_id=snapshot_id)
    return drawn


def rejected(head: Any) -> None:
    rows: pd.DataFrame = cached("refused", head.run_id)
    if rows.empty:
        st.caption(":material/check: Every file could be used.")
        return
    st.dataframe(rows, hide_index=True, alt="Files that were left out, with the reason", column_config={
        "file_name": st.column_config.TextColumn("File"), "reason": st.column_config.TextColumn("Why", width="large")})
