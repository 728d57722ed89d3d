"""What to train: a detector, alone or with a diffusion teacher, a classifier, or an anomaly model; the dataset, a preset, every
setting behind Advanced; the time it takes first. A link may say kind and dataset.
"""

import dataclasses
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import anomaly_form, dataset_view, form, model_view, stages, sweep, text, words
from pages.components.cached import cached

KINDS = {"plain": "Detector", "teacher": "Detector with a diffusion teacher", "classifier": "Classifier", "anomaly": "Anomaly model"}
ABOUT_KIND = {
    "plain": "Finds the kinds of defect that you have labelled. Learns from your labels alone.",
    "teacher": "First a diffusion model learns from the pictures without their labels, then the detector learns from it. Meant for "
               "faint defects and few labels; on our test sets little was gained (README), so compare it with a plain one. Takes longer to "
               "train, and inspects as fast.",
    "classifier": "Says which kind of defect a whole picture shows, not where. Meant for datasets with a folder for each kind; where there "
                  "are boxes, a picture is of the kind that covers most of it. Stands in the detector's place when put to use.",
    "anomaly": "Learns what good parts look like and marks whatever is unlike them, of any kind, also what nobody has labelled yet. It "
               "works beside the detector and rejects nothing by itself."}

PRESETS: dict[str, dict[str, Any]] = {"Quick": {"epochs": 10, "imgsz": 224}, "Standard": {"epochs": 40, "imgsz": 224},
                                      "Long": {"epochs": 150, "imgsz": 320}}
ABOUT = {"Quick": "A first look: does it learn anything?", "Standard": "A sound model for most parts.",
         "Long": "Larger pictures and more passes, for small or faint defects."}
TEACHERS = {"tiny": "A small diffusion model, trained briefly. Start here; no GPU needed.",
            "small": "The same model, trained four times as long.",
            "base": "A large diffusion model. It wants a GPU."}

# weights are chosen from the models that there are
PLAIN = ("epochs", "imgsz", "seed", *(f.name for f in dataclasses.fields(jobs.TrainDetector) if f.metadata.get("advanced") and
                                      f.name != "weights"))
WHOLE, SETTINGS = ("network", "steps", "imgsz"), [f.name for f in dataclasses.fields(jobs.TrainClassifier) if f.metadata.get("advanced")]
# no backbone: a guided run makes its own
GUIDED = ("teach", "distill", *(name for name in PLAIN if name != "backbone"),
          "diffusion_steps", "repository_steps", "teach_steps", "timesteps", "blocks", "spectral_filter", "dynamic", "neck_loss",
          "distill_weight", "logit_weight")


def config() -> jobs.TrainDetector | jobs.TrainClassifier | jobs.TrainAnomaly | None:
    """What the form says; None, with the reason shown, while it does not fit together."""
    linked = st.query_params.get("kind", "")
    kind = st.segmented_control("What to train", list(KINDS), default=linked if linked in KINDS else "plain", required=True,
                                format_func=KINDS.get, key="train_kind")
    st.caption(ABOUT_KIND[kind])
    sets = cached("datasets")
    names = {r.snapshot_id: f"{words.short(r.name)} · {r.images:,} pictures · {words.when(r.created_at)}" for r in sets.itertuples()}
    left, right = st.columns(2)
    asked = st.query_params.get("dataset", "")
    dataset = left.selectbox("Dataset", list(names), list(names).index(asked) if asked in names else 0, names.__getitem__,
                             key="train_dataset")
    suggested = suggest(str(sets.set_index("snapshot_id").loc[dataset, "name"]))
    name = right.text_input("Name of the model", suggested, key=f"train_name_{suggested}", max_chars=80).strip()
    try:
        return FORMS[kind](dataset, name)
    except jobs.ConfigError as error:
        words.sorry(error)
        return None


def _plain(dataset: str, name: str) -> jobs.TrainDetector:
    preset = st.segmented_control("How long", list(PRESETS), default="Standard", required=True, key="train_preset")
    st.caption(ABOUT[preset])
    with st.expander("Advanced", icon=":material/tune:"):
        weights = start(jobs.TrainDetector, "train_start")
        values = form.fields(jobs.TrainDetector, PLAIN, f"train_{preset}", PRESETS[preset])
    return jobs.TrainDetector(dataset=dataset, name=name, weights=weights, **values)


def start(kind: type[jobs.Config], key: str) -> str | None:
    """The earlier model to go on from, by run; or what a person typed: the path of a weights file. Settings of this kind ask for it."""
    models = model_view.usable(cached("models", "detector"))
    names = {r.run_id: f"{words.short(r.name, 40)} · {words.when(r.created_at)}"
             for r in models[(models["kind"] == "detector") & (models["run_id"] != "")].itertuples()}
    help = next(f.metadata["help"] for f in dataclasses.fields(kind) if f.name == "weights")
    chosen: str | None = st.selectbox("Start from", list(names), None, lambda run_id: names.get(run_id, run_id), help=help,
                                      placeholder="Nothing: learn from scratch", accept_new_options=True, key=key)
    return chosen


def _guided(dataset: str, name: str) -> jobs.TrainDistilled | None:
    preset = st.segmented_control("Diffusion model", list(TEACHERS), default="tiny", required=True, format_func=str.capitalize,
                                  key="train_teacher")
    st.caption(TEACHERS[preset])
    if n := dataset_view.unlabelled(dataset):
        st.caption(f":material/add_photo_alternate: It learns from the {n:,} {'picture' if n == 1 else 'pictures'} without labels too.")
    with st.expander("Advanced", icon=":material/tune:"):
        values = form.fields(jobs.TrainDistilled, GUIDED, "guided")
        sweep.ask(dataset)
    if not values["teach"] and not values["distill"]:
        st.warning("Without teaching and without distilling nothing of the diffusion model reaches the detector. Turn one on, "
                   "or train a plain detector.", icon=":material/info:")
        return None
    return jobs.TrainDistilled(dataset=dataset, name=name, preset=preset, **values)


def _classifier(dataset: str, name: str) -> jobs.TrainClassifier:
    values = form.fields(jobs.TrainClassifier, WHOLE, "whole")
    with st.expander("Advanced", icon=":material/tune:"):
        values |= form.fields(jobs.TrainClassifier, ("seed", *SETTINGS), "whole")
    return jobs.TrainClassifier(dataset=dataset, name=name, **values)


FORMS = {"plain": _plain, "teacher": _guided, "classifier": _classifier, "anomaly": anomaly_form.config}


def suggest(dataset: str) -> str:
    """'NEU-DET 3': the dataset's name and the next free number."""
    taken = set(cached("models", "")["name"]) | {run.name for run in jobs.recent(limit=100, recipes=words.MODEL_MAKERS)}
    return next(name for n in range(1, 1000) if (name := f"{dataset} {n}") not in taken)


def promise(config: jobs.Config) -> None:
    """How long it will take, stage by stage where there are some, and what else the machine is busy with."""
    seconds = jobs.estimate(config)
    if isinstance(config, jobs.TrainDistilled):
        stages.plan(config, "plan")
    st.caption((f":material/timer: About {words.span(seconds)} on this machine." if seconds else
                ":material/timer: How long it takes on this machine is known after a first run.") + ahead())


def ahead() -> str:
    """' 2 other tasks come first.'"""
    waiting = [r for r in jobs.recent(limit=20, open_only=True) if r.recipe not in ("inspect", "predict", "watch")]
    return f" {text.count(len(waiting))} other {'task comes' if len(waiting) == 1 else 'tasks come'} first." if waiting else ""
