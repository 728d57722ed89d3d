"""What a dataset offers to make pictures from, and ways of making them: which can be gone, and why another cannot.

Reads finished runs and the store's counts. Knows nothing of widgets, nor of how a picture is made.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from backend import jobs
from pages.components.cached import cached

MOST = 100               # newest runs looked through


@dataclass(frozen=True)
class Preset:
    """A way of making pictures, as it is offered."""

    title: str
    about: str
    settings: dict[str, Any]                # of `Synthesize`, beside what the form asks


PRESETS = {
    "like": Preset("Another like this", "A real picture of the defect is drawn again, a little differently. It keeps its place.",
                   dict(method="prior", start="image", strength=0.5)),
    "free": Preset("Freely invented", "A picture of the defect, drawn from nothing but its name.",
                   dict(method="prior", start="noise")),
    "good": Preset("On good parts", "A defect is put into a picture of a good part; its outline is known.", {}),
    "paste": Preset("Pasted", "A real defect is cut out and set into another picture.", dict(method="paste"))}


@dataclass(frozen=True)
class Made:
    """Something that a finished run has left to build on."""

    run_id: str
    name: str
    head: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Means:
    """Of one dataset."""

    snapshot_id: str
    name: str
    good: int                               # train pictures without a label
    kinds: dict[str, int]                   # labelled train pictures by kind
    adapters: list[Made]                    # adapted to it, newest first
    priors: list[Made]
    denoisers: list[Made]                   # diffusion models of it
    masks: list[Made]                       # outlines collected in production, of whatever dataset

    @property
    def drawable(self) -> set[str]:
        """Kinds that a prior draws as what they are: those that were learned; while none is adapted, those that have plain words here."""
        return {kind for one in self.adapters for kind in one.head.get("classes") or ()} if self.adapters else set(self.kinds)


def of(snapshot_id: str, name: str) -> Means:
    counts = cached("dataset_counts", snapshot_id).query("split == 'train'")
    images = {str(r.class_name): int(r.images) for r in counts.itertuples()}
    here = {"snapshot_id": snapshot_id}
    return Means(snapshot_id, name, images.pop("", 0), images, made("adapter", ("adapt-prior",), **here), made("prior", ("train-prior",)),
                 made("denoiser", ("train-diffusion", "train-distilled", "train-anomaly"), **here), made("masks", ("collect-masks",)))


def made(kind: str, recipes: tuple[str, ...], **wanted: Any) -> list[Made]:
    """What finished runs of these recipes have left of this kind, newest first; whose head has these values."""
    runs = [r.run_id for r in jobs.recent(limit=MOST, recipes=recipes) if r.state == "completed"]
    heads = ((run_id, head(run_id, kind)) for run_id in runs)
    return [Made(run_id, str(h.get("name", "")), h) for run_id, h in heads if h and all(h.get(k) == v for k, v in wanted.items())]


def head(run_id: str, kind: str) -> dict[str, Any]:
    """The head of what a finished run has left; nothing where it left nothing of this kind."""
    try:
        return _head(run_id, kind)
    except jobs.NotFoundError:
        return {}


@st.cache_data(max_entries=300, show_spinner=False)          # what a finished run has left does not change; its long lists are left out
def _head(run_id: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(jobs.run_file(run_id, f"{kind}/head.json").read_bytes())
    return {k: v for k, v in found.items() if k not in ("items", "learned", "held", "captions", "images")}


def missing(preset: str, means: Means) -> str:
    """Why this way cannot be gone with this dataset; '' where it can."""
    if preset in ("like", "paste") and not means.kinds:
        return "Needs pictures with a labelled defect; this dataset has none to learn from."
    if preset in ("like", "free") and not (means.adapters or means.priors):
        return "Needs a surface prior; there is none yet."
    if preset == "good" and not means.good:
        return "Needs pictures of good parts; each one to learn from carries a defect."
    return ""


def first(means: Means) -> str:
    """The way to start with: the first that can be gone."""
    return next((name for name in PRESETS if not missing(name, means)), "")
