"""Widgets from a config class: the same fields make the form, the command-line flags and job.json."""

import dataclasses
import types
import typing
from collections.abc import Iterable
from typing import Any

import streamlit as st

from backend import jobs

LABELS = {"imgsz": "Image side (pixels)", "split_prefix": "Prefix of the list files", "splits": "Folder with split lists",
          "group_pattern": "Pattern of the lot or unit in a file name",
          "unit_pattern": "Pattern of the unit in a file name", "captured_pattern": "Pattern of the time in a file name",
          "size": "Network size", "weights": "Start from", "batch": "Images per step", "backbone": "Taught backbone",
          "teach": "Teach the backbone first", "distill": "Distil from a fused teacher", "diffusion_steps": "Steps of the diffusion model",
          "teach_steps": "Steps of teaching", "repository_steps": "Steps of compressing", "labels": "Labelled images",
          "origin": "Train on", "synthetic": "Synthetic images", "shown": "Images in each pass",
          "images": "Pictures to learn from", "false_rejects": "Good parts it may call unusual (%)", "source": "Made defects are filled by",
          "teacher": "Frozen feature network", "good": "Learn from good pictures only",
          "perturbed": "Pictures perturbed beforehand", "preset": "Size of a new diffusion model",
          "denoiser": "Diffusion model", "loss": "What is learned", "foreground": "Defects on the object only",
          "real_share": "Share of real pictures in a step", "which": "Pictures of the synthetic sets",
          "metric": "What the verdict is about",
          "first_seed": "First seed", "blocks": "Decoder blocks", "spectral_filter": "Filter features by frequency",
          "dynamic": "Weigh features per image", "neck_loss": "How necks are compared", "distill_weight": "Weight of distillation",
          "logit_weight": "Weight of class answers"}
PERCENT = {"false_rejects"}                  # shares of one that people think of in hundredths
# what an empty number means, where no preset gives it
NONE = {"labels": "all", "real_share": "as they come", "synthetic": "all", "shown": "as many as there are"}


def fields(config: "type[jobs.Config]", names: Iterable[str] | None = None, key: str = "", start: dict[str, Any] | None = None,
           ) -> dict[str, Any]:
    """A widget for each named field (none given: the advanced ones); what they hold, ready for the config."""
    known = {f.name: f for f in dataclasses.fields(config)}
    chosen = names if names is not None else [n for n, f in known.items() if f.metadata.get("advanced")]
    hints, grid = typing.get_type_hints(config), st.grid(3, min_column_width=200)
    return {n: _widget(grid, known[n], hints[n], f"{key}_{n}", start or {}) for n in chosen}


def label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " ").capitalize())


def _widget(place: Any, f: "dataclasses.Field[Any]", hint: Any, key: str, start: dict[str, Any]) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    value, about = start.get(f.name, f.default), f.metadata.get("help")
    if "choices" in f.metadata:
        choices = list(f.metadata["choices"])
        return place.selectbox(label(f.name), choices, choices.index(value), help=about, key=key)
    if bool in kinds:
        return place.toggle(label(f.name), value, help=about, key=key)
    if int in kinds or float in kinds:
        return _number(place, f, int if int in kinds else float, value, about, key)
    typed = place.text_input(label(f.name), value or "", help=about, key=key).strip()
    return typed or (None if type(None) in kinds else "")


def _number(place: Any, f: "dataclasses.Field[Any]", kind: type[int] | type[float], value: Any, about: str | None, key: str) -> Any:
    times = 100 if f.name in PERCENT else 1
    low, high = (None if f.metadata.get(edge) is None else kind(times * f.metadata[edge]) for edge in ("low", "high"))
    style = {"format": "%g", "step": times * abs(value or 0) / 2 or 0.1} if kind is float else {"step": 1}
    typed = place.number_input(label(f.name), low, high, None if value is None else kind(times * value), help=about, key=key,
                               placeholder=NONE.get(f.name, "by the preset") if value is None else None, **style)
    return typed if times == 1 else round(typed / times, 9)
