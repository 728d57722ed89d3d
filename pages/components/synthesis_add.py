"""The way of made pictures into a dataset: which sets, which of their pictures, under what name; and what came of it.

What may stand beside which real picture the recipe decides; what it leaves out it names. Knows nothing of how a picture was judged.
"""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import form, plant, run_panel, text, training_form, words
from pages.components.cached import cached

WHICH = {"accepted": "Only what you accepted", "all": "All that you did not reject"}
TAKES = {"accepted": ("accept",), "all": ("accept", "")}


def show(run_id: str) -> None:
    made = jobs.synthetic(run_id)
    sets = alike(made["snapshot_id"])
    counts = {r: s["verdict_counts"] for r, s in sets.items()}
    chosen = [run_id] if len(sets) == 1 else st.multiselect(
        "Sets", list(sets), [run_id, *(r for r in sets if r != run_id and counts[r]["accept"])], key=f"add_sets_{run_id}",
        format_func=lambda r: f"{words.short(sets[r]['name'])} · {text.count(counts[r]['accept'])} accepted")
    which = str(st.segmented_control("Which pictures", list(WHICH), default="accepted", required=True, format_func=WHICH.get,
                                     key="add_which"))
    number = sum(counts[r][v] for r in chosen for v in TAKES[which])
    _said(number, which, counts, chosen)
    some = [r for r in chosen if any(counts[r][v] for v in TAKES[which])]          # the recipe refuses a set that gives nothing
    config = _config(made, some, which, number)
    if config is not None:
        training_form.promise(config)
        pictures = f"{text.count(number)} made {'picture' if number == 1 else 'pictures'}"
        if st.button(f"Make a dataset with {pictures}", type="primary", key="add_go", icon=":material/library_add:",
                     disabled=not number or not config.name):
            run_panel.start(config)
    _came(run_id)


def alike(snapshot_id: str) -> dict[str, dict[str, Any]]:
    """Finished sets of one dataset by run, newest first."""
    found: dict[str, dict[str, Any]] = {}
    for run in jobs.recent(limit=100, recipes=("synthesize",)):
        if run.state == "completed":
            try:
                made = jobs.synthetic(run.run_id)
            except jobs.NotFoundError:
                continue
            found |= {run.run_id: made} if made["snapshot_id"] == snapshot_id else {}
    return found


def _said(number: int, which: str, counts: dict[str, dict[str, int]], chosen: list[str]) -> None:
    """What it will hold; where that is nothing, what to do."""
    again = sum(counts[r]["again"] for r in chosen)
    if not chosen:
        st.caption("Choose a set.")
    elif not number and which == "accepted":
        st.info("No picture is accepted yet. Look them over under Pictures, or take all that you did not reject.",
                icon=":material/fact_check:")
    else:
        later = f" The {text.count(again)} to be made again stay out." if again else ""
        st.caption("They join the training pictures of a new dataset, marked as made. Its validation and test pictures are the same real "
                   f"ones, so models on both can be compared.{later}")


def _config(made: dict[str, Any], chosen: list[str], which: str, number: int) -> jobs.Combine | None:
    datasets = {r.snapshot_id: words.short(r.name) for r in cached("datasets").itertuples()}
    start = list(datasets).index(made["snapshot_id"]) if made["snapshot_id"] in datasets else 0
    suggested = suggest(str(made["dataset"]), number)
    name = st.text_input("Name of the new dataset", suggested, key=f"add_name_{suggested}", max_chars=80, width=420).strip()
    with st.expander("Advanced", icon=":material/tune:", key="add_more"):
        dataset = st.selectbox("Dataset to add them to", list(datasets), start, datasets.__getitem__, key=f"add_to_{made['run_id']}",
                               help="Another version of the same pictures will do, if what they were made from is in its training split.")
        values = form.fields(jobs.Combine, ("limit", "seed"), "add")
    try:
        return jobs.Combine(dataset=str(dataset), name=name, sets=", ".join(chosen), which=which, **values)
    except jobs.ConfigError as error:
        words.sorry(error)
        return None


def suggest(dataset: str, number: int) -> str:
    """'tiles + 48 made': the first that no dataset has."""
    taken = {*cached("datasets")["name"], *(r.name for r in jobs.recent(limit=100, recipes=("combine", "import")))}
    stem = f"{dataset[:60]} + {number} made" if number else f"{dataset[:60]} + made"
    return next(name for n in range(1, 1000) if (name := f"{stem} ({n})" if n > 1 else stem) not in taken)


def _came(run_id: str) -> None:
    """Datasets that this set went into, newest first, with the way on."""
    runs = [r for r in jobs.recent(limit=100, recipes=("combine",)) if run_id in r.config.get("sets", "")]
    for run in runs[:5]:
        with st.container(border=True, key=f"came_{run.run_id}"):
            run_panel.show(run.run_id, _on)


def _on(status: jobs.RunStatus) -> None:
    if status.state != "completed" or run_panel.unsettled(status):
        return
    refused, snapshot_id = int(status.result.get("refused") or 0), str(status.result.get("snapshot_id", ""))
    if refused:
        with st.expander(f"{text.count(refused)} left out", icon=":material/report:", key=f"out_{status.run_id}"):
            st.dataframe(cached("refused", status.run_id), hide_index=True, alt="Pictures that were left out, with the reason",
                         column_config={"file_name": "Picture", "reason": st.column_config.TextColumn("Why", width="large")})
    with st.container(horizontal=True):
        plant.link("datasets", "See the dataset", icon=":material/photo_library:", dataset=snapshot_id)
        plant.link("training", "Train on it", icon=":material/model_training:", dataset=snapshot_id)
        plant.link("comparison", "Find out whether it helps", icon=":material/balance:", new="plan", dataset=snapshot_id)
