"""What to train: the dataset, a preset, and every setting behind Advanced, with the time it will take said first."""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import form, text, words
from pages.components.cached import cached

PRESETS: dict[str, dict[str, Any]] = {"Quick": {"epochs": 10, "imgsz": 224}, "Standard": {"epochs": 40, "imgsz": 224},
                                      "Long": {"epochs": 150, "imgsz": 320}}
ABOUT = {"Quick": "A first look: does it learn anything?", "Standard": "A sound model for most parts.",
         "Long": "Larger pictures and more passes, for small or faint defects."}
CHOSEN = ("epochs", "imgsz", "seed", "batch", "size", "weights", "learning_rate")


def config() -> jobs.TrainDetector | None:
    """What the form says; None, with the reason shown, while it does not fit together."""
    sets = cached("datasets")
    names = {r.snapshot_id: f"{words.short(r.name)} · {r.images:,} pictures · {words.when(r.created_at)}" for r in sets.itertuples()}
    left, right = st.columns(2)
    dataset = left.selectbox("Dataset", list(names), format_func=names.__getitem__, key="train_dataset")
    suggested = suggest(str(sets.set_index("snapshot_id").loc[dataset, "name"]))
    name = right.text_input("Name of the model", suggested, key=f"train_name_{suggested}", max_chars=80).strip()
    preset = st.segmented_control("How long", list(PRESETS), default="Standard", required=True, key="train_preset")
    st.caption(ABOUT[preset])
    with st.expander("Advanced", icon=":material/tune:"):
        values = form.fields(jobs.TrainDetector, CHOSEN, f"train_{preset}", PRESETS[preset])
    try:
        return jobs.TrainDetector(dataset=dataset, name=name, **values)
    except jobs.ConfigError as error:
        words.sorry(error)
        return None


def suggest(dataset: str) -> str:
    """'NEU-DET 3': the dataset's name and the next free number."""
    taken = set(cached("models")["name"]) | {run.name for run in jobs.recent(limit=100, recipes=("train-detector",))}
    return next(name for n in range(1, 1000) if (name := f"{dataset} {n}") not in taken)


def promise(config: jobs.TrainDetector) -> None:
    """How long it will take, and what else the machine is busy with."""
    seconds = jobs.estimate(config)
    ahead = [r for r in jobs.recent(limit=20, open_only=True) if r.recipe not in ("inspect", "predict")]
    wait = f" {text.count(len(ahead))} other {'task comes' if len(ahead) == 1 else 'tasks come'} first." if ahead else ""
    st.caption((f":material/timer: About {words.span(seconds)} on this machine." if seconds else
                ":material/timer: No estimate for this one.") + wait)
