"""A guided run as a line of stages: what will be done, what is done, what it gave, and its curves.

Reads `stages.json` and `metrics.jsonl` of the run, in which a stage's curves carry its name as prefix. Knows nothing of how
a stage works; which finished one is reused is the recipe's decision.
"""

import json
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import plant, training_curves, words

# name -> what it is called before a run has said so, and what happens in it
STAGES = {
    "diffusion": ("Pre-train the diffusion model", "It learns to remove noise from your training pictures, without their labels, and from "
                                                   "those that nobody labelled. For that it must come to know what the surface, and a "
                                                   "defect in it, looks like."),
    "repository": ("Build the feature repository", "What it sees in each picture is kept, compressed, so that it need not run again."),
    "backbone": ("Teach the backbone", "The detector's first layers learn to see the same, still without labels."),
    "fused": ("Train the fused teacher", "A detector learns your labels and reads the diffusion model's features beside each picture."),
    "student": ("Train the student", "A plain, fast detector learns your labels and from the teacher. This one is put to use."),
}
ALONE = "A plain, fast detector learns your labels, from the taught backbone on. This one is put to use."
# stage's state -> icon and words in the label
STATES = {"done": (":material/check_circle:", ":green[Done]"), "reused": (":material/recycling:", ":green[Reused]"),
          "running": ("spinner", ":blue[Running]"), "waiting": (None, "Waiting"), "stopped": (":material/error:", ":orange[Stopped here]"),
          "next": (":material/resume:", "Goes on from here")}
# of all that a stage says of itself, what a line has room for
FIGURES = {"loss": "loss {}", "ratio": "{} times smaller", "cosine_val": "likeness {}", "val_map50": "mAP50 {} on val",
           "map50": "{} on test"}


def plan(config: jobs.TrainDistilled, key: str) -> None:
    """Before it begins: the stages with the time each will take here."""
    known = jobs.estimate_stages(config)
    for name, seconds in known.items():
        takes = "already there" if seconds == 0 else f"about {words.span(seconds)}" if seconds else "no estimate yet"
        with st.expander(f"**{STAGES[name][0]}** · {takes}", type="step", key=f"{key}_{name}"):
            st.caption(about(name, config.distill))


def about(name: str, distill: bool) -> str:
    return ALONE if name == "student" and not distill else STAGES[name][1]


def read(run_id: str) -> list[dict[str, Any]]:
    """The run's own account; empty while it has not begun."""
    try:
        listed: list[dict[str, Any]] = json.loads(jobs.run_file(run_id, "stages.json").read_bytes())
    except jobs.NotFoundError:
        return []
    return listed


def show(status: jobs.RunStatus, points: pd.DataFrame) -> None:
    """The stages of a run, each with its curves behind it; the running one, or the last of a finished run, laid open."""
    listed = read(status.run_id)
    if not listed and status.is_open:
        plan(jobs.TrainDistilled.from_json(status.config), f"plan_{status.run_id}")
    for row in listed:
        state = _state(row, status)
        last = status.state == "completed" and row is listed[-1]
        icon, said = STATES[state]
        with st.expander(" · ".join([f"**{words.plain(row['title'])}**", said, *_facts(row)]), row["state"] == "running" or last,
                         type="step", icon=icon, key=f"stage_{status.run_id}_{row['name']}_{state}", on_change="rerun") as box:
            st.caption(about(row["name"], status.config["distill"]))
            if box.open:
                _inside(status.run_id, row, of_stage(points, row["name"]))


def _state(row: dict[str, Any], status: jobs.RunStatus) -> str:
    """A stage runs only while its run does: a killed worker could not take its word back."""
    if row["state"] != "running" or status.state == "running":
        return str(row["state"])
    return "next" if status.is_open else "stopped"


def of_stage(points: pd.DataFrame, name: str) -> pd.DataFrame:
    """A stage's points, its prefix off; its own step counter, where it wrote one, in place of the run's."""
    ours = points[points["name"].str.startswith(f"{name}_")]
    ours = ours.assign(name=ours["name"].str.removeprefix(f"{name}_"))
    steps = ours[ours["name"] == "step"].set_index("step")["value"]
    ours = ours[ours["name"] != "step"]
    return ours.assign(step=ours["step"].map(steps).fillna(ours["step"]).astype("int64")) if len(steps) else ours


def preview(run_id: str) -> bool:
    """Pictures that the diffusion model draws from nothing, as far as it has come."""
    try:
        picture = jobs.run_file(run_id, "samples.png").read_bytes()
    except jobs.NotFoundError:
        return False
    st.markdown("**Pictures it draws by itself:** they should come to look like yours")
    st.image(picture, width=520, alt="Grid of pictures drawn by the diffusion model")
    return True


def _inside(run_id: str, row: dict[str, Any], points: pd.DataFrame) -> None:
    if row["from_run"]:
        plant.link("training", "See the run that made it", icon=":material/arrow_forward:", run=row["from_run"])
    if row["name"] == "diffusion":
        preview(row["from_run"] or run_id)
    if len(points):
        training_curves.show(points, f"{run_id}_{row['name']}")
    elif row["state"] == "running":
        st.skeleton(200)
        st.caption("Curves begin after the first steps.")


def _facts(row: dict[str, Any]) -> list[str]:
    """'24 min', 'mAP50 0.652': what fits a line."""
    took = [words.span(row["seconds"])] if row["seconds"] and row["state"] == "done" else []
    return took + [said.format(f"{row['figures'][name]:.3g}") for name, said in FIGURES.items() if row["figures"].get(name) is not None]
