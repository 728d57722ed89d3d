"""Where the defects are: a picture with the boxes it has so far, drawn over by a person, saved, and the next one; then a new dataset.

Pictures come from inspections or from a dataset. Each save is an event that can be taken back. The work can go to CVAT and come back
(`label_cvat`); what people drew becomes a dataset by one button, in which test pictures stay test pictures.
"""

import re
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import label_canvas, label_cvat, person, plant, review_answer, run_panel, text, words
from pages.components.cached import cached

WIDE = 1600                # of the picture in the browser; boxes are in the original's pixels
SITTING = 200
STAYS = {"val": ", and stays there", "test": ", and stays there", "unlabelled": ", and joins train"}     # a labelled picture's split
BEGUN = {"model": "The boxes are the model's.", "dataset": "The boxes are the dataset's.", "person": "Somebody has labelled it before.",
         "": ""}
KEYS = """Drag to draw; drag a box to move it, its edges to resize it. Hold **Shift** to begin inside another box.

| Key | |
|---|---|
| N, B | new box, next box (with Shift: the one before) |
| 1 to 9 | kind of the box, and of the next one |
| Arrows | move; with Shift resize; with Ctrl ten times as far |
| Del, Ctrl Z, Ctrl Y | delete, undo, redo |
| 0, Enter | no defect, save |
| +, −, Space | enlarge, make smaller, hold to move about |
"""


def show(shown: str) -> None:
    st.caption("Draw where the defects are, for a detector to learn from. Nothing here changes the counted defect rate.")
    source = _source(shown)
    shown = owner(shown, source)
    _made()
    rows = waiting(shown, source)
    if len(rows):
        _one(shown, source, rows)
    else:
        with st.container(border=True, key="all_labelled"):
            st.markdown("### :material/task_alt: Nothing here waits to be labelled")
            st.markdown("Choose other pictures above, or turn on “Labelled ones too”.")
            if n := len(st.session_state.get("label_skipped", [])):
                st.button(f"Look again at {text.counted(n, 'picture')} put off or just labelled", icon=":material/replay:",
                          key="label_unskip", on_click=st.session_state.pop, args=("label_skipped", None))
            review_answer.line()
    with st.container(horizontal=True, vertical_alignment="bottom", key="label_more"):
        review_answer.reviewer(shown)
        with st.popover("Keys", icon=":material/keyboard:"):
            st.markdown(KEYS)
        with st.popover("New dataset", icon=":material/database:"):
            _new_dataset(shown, source)
        with st.popover("CVAT", icon=":material/swap_horiz:"):
            label_cvat.show(shown, source, _snapshot(source), kinds(shown, source, []), bool(len(rows)))


def owner(shown: str, source: str) -> str:
    """The plant that labels of these pictures are kept with. A dataset is no plant's: what is drawn on it does not go when the demo is
    removed, nor is it missing where another plant is looked at."""
    return shown if source in jobs.labelling.KINDS else "real"


def _source(shown: str) -> str:
    """Which pictures; remembered as long as the page stays. Of a plant that has inspected nothing yet, a dataset's alone."""
    asked = str(st.query_params.get("pictures", ""))                      # a dataset's page leads here
    sets = newest(asked, str(st.session_state.get("label_source", "")))
    inspected = jobs.labelling.KINDS if plant.inspected(shown) else {}
    if not inspected and sets.empty:                                      # the last one went while this page stood open
        st.rerun()
    names = {**inspected, **{i: f"Dataset {name}" for i, name in named(sets).items()}}
    st.session_state.setdefault("label_source", asked if asked in names else next(iter(names)))
    with st.container(horizontal=True, vertical_alignment="bottom", key="label_head"):
        chosen = st.selectbox("Pictures", list(names), format_func=names.__getitem__, key="label_source", width=280)
        st.toggle("Labelled ones too", key="label_again")
    return str(chosen)


def newest(*asked: str) -> pd.DataFrame:
    """Datasets, of several of one name the newest, and those asked for."""
    sets = cached("datasets")
    return sets[~sets["name"].duplicated() | sets["snapshot_id"].isin(asked)]


def named(sets: pd.DataFrame) -> dict[str, str]:
    """By snapshot id; where names repeat, with their day."""
    columns = (sets["snapshot_id"], sets["name"], sets["created_at"], sets["name"].duplicated(keep=False))
    return {str(i): words.short(name) + (f" · {words.when(at)}" if repeats else "") for i, name, at, repeats in zip(*columns, strict=True)}


def waiting(shown: str, source: str) -> pd.DataFrame:
    """Rows that wait, without those that this person put off."""
    skipped = st.session_state.get("label_skipped", [])
    most = -(-(SITTING + len(skipped)) // SITTING) * SITTING              # a new question at each SITTING put off, not at each picture
    rows = _waiting(shown, source, bool(st.session_state.get("label_again")), jobs.results.revision(), most)
    return rows[~rows["image_id"].isin(skipped)].head(SITTING)


@st.cache_data(max_entries=20, show_spinner=False)
def _waiting(shown: str, source: str, again: bool, revision: int, most: int) -> pd.DataFrame:
    return jobs.labelling.waiting(shown, source, most, again)


def _snapshot(source: str) -> str:
    return "" if source in jobs.labelling.KINDS else source


def _one(shown: str, source: str, rows: pd.DataFrame) -> None:
    row = next(rows.itertuples(index=False))
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="label_about"):
        st.markdown(f"**{text.count(len(rows))}{' or more' if len(rows) == SITTING else ''} to label**", width="content")
        split = getattr(row, "split", "")
        st.caption(words.plain(row.file_name, 60) + (f" · {split}{STAYS.get(split, '')}" if split else ""),
                   width="content")
        st.button("Skip", icon=":material/skip_next:", type="tertiary", shortcut="S", key="label_skip", on_click=_skip,
                  args=(row.image_id,))
        review_answer.line()
    _canvas(shown, source, row)
    if len(rows) > 1:
        _ready(rows["image_id"].iloc[1])


def _canvas(shown: str, source: str, row: Any) -> None:
    inspection = int(row.inspection_id) if hasattr(row, "inspection_id") else None
    try:
        picture = _picture(row.image_id)
    except jobs.DiffspectError as error:
        st.caption(f":material/hide_image: {words.plain(error)}")
        return
    boxes, whose = jobs.labelling.begin(shown, row.image_id, inspection, _snapshot(source))
    # what is drawn and not saved waits in the browser by this: at a shift change the next person in the tab meets none of it
    about = dict(id=f"{person.named()}/{shown}/{source}/{row.image_id}", name=words.short(row.file_name, 120),
                 width=int(row.width), height=int(row.height), boxes=boxes, kinds=kinds(shown, source, boxes))
    label_canvas.canvas(picture, about, lambda: _save(shown, row), "boxes")
    if BEGUN[whose]:
        st.caption(BEGUN[whose])


@st.cache_data(max_entries=30, show_spinner=False)       # the bare picture never changes
def _picture(image_id: str) -> bytes:
    drawn: bytes = jobs.results.picture(image_id=image_id, boxes=False, width=WIDE, format="jpeg")
    return drawn


def _ready(image_id: str) -> None:
    """Draw the next one now, while the person looks at this one."""
    try:
        _picture(image_id)
    except jobs.DiffspectError:
        return                                               # said when it is its turn


def kinds(shown: str, source: str, boxes: list[list[Any]]) -> list[str]:
    """Names to choose from, in an order that stays: keys hang on it."""
    sets = cached("datasets")
    own = next((list(r.classes) for r in sets[sets["snapshot_id"] == source].itertuples()), [])
    return list(dict.fromkeys([*own, *review_answer.kinds(shown), *(b[0] for b in boxes)])) or ["defect"]


def _save(shown: str, row: Any) -> None:
    said = st.session_state["boxes"]["saved"]
    if not said or not str(said["id"]).endswith(f"/{row.image_id}"):
        return                                               # of a picture that is here no more: it was saved twice
    one = dict(image_id=row.image_id, file_name=row.file_name, width=int(row.width), height=int(row.height), boxes=said["boxes"],
               unit=str(getattr(row, "unit", "") or ""))
    found = len(said["boxes"])
    told = f"{found} {'box' if found == 1 else 'boxes'}" if found else "no defect"
    if review_answer.keep(f"{words.short(row.file_name, 40)}: {told}.", lambda: jobs.labelling.save(shown, [one], review_answer.name())):
        review_answer.kinds(shown, *(b[0] for b in said["boxes"]))
        if st.session_state.get("label_again"):
            _skip(row.image_id)


def _skip(image_id: str) -> None:
    st.session_state["label_skipped"] = [*st.session_state.get("label_skipped", []), image_id]


# ---- a new dataset

def _new_dataset(shown: str, source: str) -> None:
    count = jobs.labelling.count(shown)
    if not count:
        st.markdown("Label a picture first; what people drew becomes a new dataset here.")
        return
    sets = newest(source)
    names = {**(named(sets) if shown != "demo" else {}), "": "None: labelled pictures alone"}          # made-up pictures join no real ones
    start = list(names).index(source) if source in names else 0
    base = st.selectbox("Start from", list(names), start, format_func=names.__getitem__, key=f"label_base_{source}")
    said = "Its pictures keep their place; test stays test. Corrected ones get the new boxes, new ones go to train." if base else \
        "Train, val and test are drawn; nearly equal pictures stay together. Pictures of a dataset stay there."
    st.caption(f"{text.counted(count, 'labelled picture')}. {said}")
    new = not base or st.toggle("Add labelled pictures of inspections", True, key="label_new",
                                help="Turn it off where they are of another product: then only the dataset's own pictures are corrected.")
    own = sets.loc[sets["snapshot_id"] == base, "name"].map(words.short).tolist()
    name = st.text_input("Name", suggested(own[0] if own else "Labelled", sets["name"].tolist()), key=f"label_name_{base}",
                         max_chars=80)
    st.button("Make the dataset", type="primary", icon=":material/database:", key="make_dataset", disabled=not name.strip(),
              on_click=_make, args=(shown, base, name.strip(), new))


def suggested(name: str, taken: list[str]) -> str:
    """The name itself, or with the first number after it that is free."""
    stem = re.sub(r" \d{1,4}$", "", name) if name in taken else name
    return next(new for n in range(1, 10_000) if (new := f"{stem} {n}" if n > 1 else stem) not in taken)


def _make(shown: str, base: str, name: str, new: bool) -> None:
    try:
        st.session_state["relabelled"] = jobs.submit(jobs.Relabel(dataset=base, name=name, plant=shown, new=new), plant=shown,
                                                     by=review_answer.name())
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")


def _made() -> None:
    """The dataset that was asked for here, until it is in, and then the way to it."""
    run_id = st.session_state.get("relabelled")
    if not run_id:
        return
    try:
        status = jobs.status(run_id)
    except jobs.NotFoundError:                               # it was the demo's, and went with it
        del st.session_state["relabelled"]
        return
    on_its_way = status.is_open or run_panel.unsettled(status)
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="relabelled_run"):
        words.pill(status)
        if status.state == "completed" and not on_its_way:
            head = status.result
            st.markdown(f"Dataset **{words.plain(status.name, 60)}**: {head['relabelled']:,} corrected, {head['added']:,} added"
                        + (f", {head['refused']:,} left out" if head["refused"] else ""), width="content")
            plant.link("datasets", "See it", icon=":material/arrow_forward:", dataset=head["snapshot_id"])
        else:
            st.markdown(f"Dataset **{words.plain(status.name, 60)}** {words.plain(status.message, 300)}", width="content")
    if on_its_way:
        st.fragment(_look, run_every=1.0)(run_id, status.state)


def _look(run_id: str, seen: str) -> None:
    try:
        status = jobs.status(run_id)
    except jobs.NotFoundError:
        st.rerun()
    if status.state != seen or not (status.is_open or run_panel.unsettled(status)):
        st.rerun()
