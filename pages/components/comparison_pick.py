"""Pick finished runs to compare: those scored on one test set, the others greyed with the reason; put them into arms, start.

Knows nothing of how a difference is worked out: `jobs.compare` says it, and why where it cannot be.
"""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import comparison_subject, comparison_verdict, plant, text, words
from pages.components.cached import cached

MOST = 500                     # rows a browser's table holds well
UNKNOWN = "Its test pictures are not known any more"
GREY = "color: rgb(128 134 140 / 75%); font-style: italic"


def show() -> None:
    runs = cached("scored_runs")
    runs = runs.assign(test_set_id=runs["test_set_id"].fillna(""))
    if (n := int((runs["test_set_id"] != "").sum())) < 2:
        nothing(n)
        return
    test, word = _filters(runs)
    shown = listed(runs, test, word)
    chosen = _table(shown, test)
    if not chosen:
        st.caption("Choose two runs or more, of at least two kinds; seeds of one kind go together by themselves.")
        return
    _arms(shown.set_index("run_id", drop=False).loc[chosen])


def nothing(n: int) -> None:
    st.info("No training has finished yet, so there is nothing to compare." if not n else
            "One training has finished. A comparison takes two, scored on the same test.", icon=":material/model_training:")
    plant.link("training", "Train a detector", icon=":material/arrow_forward:")


def _filters(runs: pd.DataFrame) -> tuple[str, str]:
    """The test set that all must share, the one with most runs first, and a part of the name."""
    counts = runs.loc[runs["test_set_id"] != "", "test_set_id"].value_counts()
    first = {t: runs[runs["test_set_id"] == t].iloc[0] for t in counts.index}
    names = {t: f"{words.short(first[t]['dataset'] or '–', 40)}: {text.count(first[t]['images'] or 0)} test pictures · "
                f"{text.counted(n, 'run')}{' · demo plant' if first[t]['plant'] == 'demo' else ''}" for t, n in counts.items()}
    grid = st.grid(2, min_column_width=260)
    linked = st.query_params.get("test", "")
    start = list(names).index(linked) if linked in names else 0
    test = str(grid.selectbox("Scored on", list(names), start, names.__getitem__, key="pick_test"))
    return test, str(grid.text_input("Name holds", key="pick_word", placeholder="all")).strip().casefold()


def listed(runs: pd.DataFrame, test: str, word: str) -> pd.DataFrame:
    """Those of this test set first, newest first; with `why` the others cannot be compared with them."""
    of = zip(runs["test_set_id"], runs["dataset"], strict=True)
    rows = runs.assign(why=["" if t == test else other(words.short(d or "–", 24)) if t else UNKNOWN for t, d in of])
    rows = rows[[word in str(n).casefold() for n in rows["name"]]] if word else rows
    return rows.iloc[(rows["why"] != "").argsort(kind="stable")].head(MOST).reset_index(drop=True)


def other(dataset: str) -> str:
    return f"Scored on other test pictures: {dataset}"


def _table(shown: pd.DataFrame, test: str) -> list[str]:
    """Ids of the rows taken that can be compared."""
    if shown.empty:
        st.caption("No run is called that.")
        return []
    grey = shown["why"] != ""
    look = view(shown).style.apply(lambda row: [GREY if grey[row.name] else ""] * len(row), axis=1).format(
        {"mAP50 test": "{:.3f}", "Synthetic": "{:,.0f}", "Real": "{:,.0f}"}, na_rep="–")
    state = st.dataframe(look, hide_index=True, key=f"pick_{test}", on_select="rerun", selection_mode="multi-row",
                         alt="Finished trainings of detectors", placeholder="–",
                         column_config={"Name": st.column_config.TextColumn(pinned=True, width=220)})
    taken = [i for i in state["selection"]["rows"] if i < len(shown)]
    if off := [shown["name"][i] for i in taken if grey[i]]:
        st.warning(f"{words.plain(off[0], 60)} was scored on other test pictures: its figures do not compare with these. It is left out.",
                   icon=":material/balance:")
    if len(shown) == MOST:
        st.caption(f"The newest {MOST} are shown. Narrow them by name.")
    return [str(shown["run_id"][i]) for i in taken if not grey[i]]


def view(shown: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({
        "Name": [words.short(n, 48) for n in shown["name"]], "Kind": [words.RECIPES.get(r, r) for r in shown["recipe"]],
        "Seed": shown["seed"].astype("Int64"),
        "Real": shown["real_images"].astype(float), "Synthetic": shown["synthetic_images"].astype(float),
        "mAP50 test": shown["map50"].astype(float), "Ended": [words.when(at) for at in shown["created_at"]],
        "In use": ["in use" if p else "" for p in shown["promoted"]], "Not with these": shown["why"]})


# ---- into arms

def _arms(rows: pd.DataFrame) -> None:
    """Which run goes into which arm; what differs in the seed alone goes together."""
    grouped = comparison_subject.grouped(rows)
    start = {run: arm for arm, runs in grouped.items() for run in runs}
    st.markdown("**Arms:** runs of one arm count as its seeds. Change a name to put a run into another arm")
    key = "arms_" + "_".join(r[-6:] for r in rows["run_id"])
    edited = st.data_editor(
        pd.DataFrame({"Run": [words.short(n, 60) for n in rows["name"]], "Seed": rows["seed"].tolist(),
                      "Arm": [start[r] for r in rows["run_id"]]}),
        hide_index=True, key=key, disabled=["Run", "Seed"], alt="Runs and their arms",
        column_config={"Arm": st.column_config.TextColumn(required=True, max_chars=40)})
    arms: dict[str, list[str]] = {}
    for run, arm in zip(rows["run_id"], edited["Arm"], strict=True):
        arms.setdefault(str(arm).strip(), []).append(str(run))
    if len(arms) < 2:
        st.caption(":material/info: All of them are in one arm. Take a run of another kind, or give one another name.")
        return
    _start(arms, list(grouped)[0])


def _start(arms: dict[str, list[str]], first: str) -> None:
    grid = st.grid(2, min_column_width=260)
    names = list(arms)
    baseline = str(grid.selectbox("Baseline", names, names.index(first) if first in names else 0, key=f"pick_base_{'_'.join(names)}",
                                  format_func=words.short, help="What the others are held against."))
    others = [a for a in names if a != baseline]
    suggested = words.short(f"{' and '.join(others)} against {baseline}", 80)
    name = str(grid.text_input("Name of the comparison", suggested, max_chars=80, key=f"pick_name_{suggested}")).strip()
    _uneven(arms)
    with st.container(horizontal=True):
        if st.button("Compare", type="primary", icon=":material/balance:", key="pick_go", disabled=not name):
            comparison_verdict.start({baseline: arms[baseline], **{a: arms[a] for a in others}}, baseline, name)
        st.button("Look without a verdict", type="tertiary", key="pick_look", on_click=st.query_params.from_dict,
                  args=({"runs": ",".join(r for runs in arms.values() for r in runs)},))


def _uneven(arms: dict[str, list[str]]) -> None:
    """What the verdict will not be able to say."""
    fewest: Any = min(map(len, arms.values()))
    if fewest < 5:
        st.caption(f":material/hourglass_empty: The smallest arm has {text.counted(fewest, 'run')}: the verdict will be provisional. From "
                   "five seeds on its interval can be relied on.")
