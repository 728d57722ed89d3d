"""The form of an anomaly model: how long, how many good pictures it may call unusual, the rest behind Advanced; and whether the
dataset has the good pictures it takes.

What the recipe refuses, or would leave without a limit, is said before the hours are spent. Knows nothing of how it learns.
"""

import dataclasses
import math

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import form, text, words

MAIN = ("steps", "false_rejects", "imgsz")
ADVANCED = [f.name for f in dataclasses.fields(jobs.TrainAnomaly) if f.name not in ("dataset", "name", *MAIN)]
LEAST = 4                # good pictures in the train split, two of which are kept aside, where val has none; else 2: as the recipe counts
MOST = 2_000             # pictures kept aside, as the recipe counts; the setting allows no share that takes more
ALL = 2**31              # rows of a dataset: no limit
ENOUGH = 3               # a share r takes 3 / r good pictures kept from training, as the recipe counts


def config(dataset: str, name: str) -> jobs.TrainAnomaly | None:
    """What the form says; None, with the reason shown, where it cannot be trained."""
    train, val = good(dataset, jobs.results.revision())
    least = 2 if val else LEAST
    if train < least:
        nothing_good(train, least)
        return None
    train, held_out = divided(train, val)
    values = form.fields(jobs.TrainAnomaly, MAIN, "odd")
    told(train, held_out, values["false_rejects"])
    with st.expander("Advanced", icon=":material/tune:"):
        values |= form.fields(jobs.TrainAnomaly, ADVANCED, "odd")
    return jobs.TrainAnomaly(dataset=dataset, name=name, **values)


@st.cache_data(max_entries=50, show_spinner=False)
def good(dataset: str, revision: int) -> tuple[int, int]:
    """Real pictures without a label in train and in val, each once, val before train, none that stands in the test split too or nearly
    equals one that is judged by. `revision`: the store's, so that two numbers are kept between reruns and not the rows they are
    counted in."""
    rows = jobs.results.dataset_images(dataset, limit=ALL)
    tested = set(rows.loc[rows["split"] == "test", "image_id"])
    plain = rows[(rows["boxes"] == 0) & (rows["origin"] == "real") & ~rows["image_id"].isin(tested)]
    val = set(plain.loc[plain["split"] == "val", "image_id"])
    train = plain[(plain["split"] == "train") & ~plain["image_id"].isin(val)]
    return _apart(train, rows, "val", "test"), _apart(plain[plain["split"] == "val"], rows, "test")


def _apart(of: pd.DataFrame, rows: pd.DataFrame, *splits: str) -> int:
    """How many of these pictures nearly equal none in these splits."""
    groups = set(rows.loc[rows["split"].isin(splits), "group_id"]) - {""}
    return int(of.loc[~of["group_id"].isin(groups), "image_id"].nunique())


def divided(train: int, val: int) -> tuple[int, int]:
    """Good pictures to learn from, and those kept aside: val's, else about a tenth of train's, two at least."""
    kept = min(MOST, val or max(2, round(train / 10)))
    return train - (0 if val else kept), kept


def nothing_good(n: int, least: int) -> None:
    """A dataset with fewer good pictures than it takes."""
    here = "has no good picture" if n == 0 else f"has {text.count(n)} good {'picture' if n == 1 else 'pictures'}"
    st.warning(f"An anomaly model learns from pictures of good parts. This dataset {here} for training, and it takes {text.count(least)}: "
               "every other one carries a labelled defect, was made by the program, or is kept for validation or the test. Import pictures "
               "of good parts without labels and train on those.", icon=":material/photo_library:")


def told(train: int, held_out: int, share: float) -> None:
    """How many good pictures there are, what the share means in them, and what they are too few for."""
    said = (f"It learns from {text.count(train)} good pictures; {text.count(held_out)} more are kept aside to set the limit. Defects need "
            f"not be labelled. Of 1,000 good parts it would call about {text.count(round(1000 * share))} unusual.")
    st.caption(said)
    needed = math.ceil(ENOUGH / share - 1e-9)
    if held_out >= needed:
        return
    least = math.ceil(1e3 * ENOUGH / held_out - 1e-9) / 10
    instead = f"Allow {least:g} % or more, or add good pictures." if least <= 50 else "Add good pictures."
    st.warning(f"{100 * share:g} % cannot be told from {text.count(held_out)} good pictures kept aside; it takes {text.count(needed)}. The "
               f"model would score pictures and draw heat maps, but have no limit of its own. {words.plain(instead, 200)} A limit can also "
               "be set by eye later, on an inspected batch.", icon=":material/straighten:")
