"""A comparison laid open: what is compared, and its views: verdict, curves, pictures, operating point, settings. The view is in the URL."""

from collections.abc import Callable

import streamlit as st

from backend import jobs
from pages.components import (
    comparison_cost,
    comparison_curves,
    comparison_export,
    comparison_images,
    comparison_settings,
    comparison_verdict,
    run_panel,
    text,
    words,
)
from pages.components.cached import cached
from pages.components.comparison_subject import Subject

VIEWS: dict[str, Callable[[Subject], None]] = {
    "Verdict": comparison_verdict.show, "Curves": comparison_curves.show, "Images": comparison_images.show,
    "Operating point": comparison_cost.show, "Configuration": comparison_settings.show}


def show(subject: Subject) -> None:
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", key="comparison_head"):
        st.subheader(words.plain(subject.name, 100), anchor=False, width="content")
        comparison_export.offer(subject)
    if (subject.rows["plant"] == "demo").any():
        st.badge("Demo plant: made-up pictures", color="gray", icon=":material/science:")
    st.caption(about(subject))
    _missing(subject)
    asked = st.query_params.get("view", "")
    st.session_state.setdefault("view", asked if asked in VIEWS else "Verdict")             # no default beside it: a button sets it too
    view = st.segmented_control("View", list(VIEWS), required=True, key="view", bind="query-params", wrap=True,
                                label_visibility="collapsed")
    if subject.rows.empty and view != "Verdict":
        st.info("The runs are not on this machine any more, so there is nothing to show here.", icon=":material/folder_off:")
        return
    VIEWS[view](subject)


def _missing(subject: Subject) -> None:
    """Runs compared that the database does not have: those on their way into it are waited for, those gone are told."""
    known = set(subject.rows["run_id"])
    missing = [run for runs in subject.arms.values() for run in runs if run not in known]
    if gone := [run for run in missing if not _there(run)]:
        st.warning(f"Not on this machine any more: {text.counted(len(gone), 'run')} of those compared. The verdict stands; curves and "
                   "pictures show the rest.", icon=":material/folder_off:")
    if len(missing) > len(gone):
        run_panel.awaited(*words.DETECTOR_MAKERS)


def _there(run_id: str) -> bool:
    try:
        return jobs.status(run_id).state == "completed"
    except jobs.NotFoundError:
        return False


def about(subject: Subject) -> str:
    """'real, both · 5 runs each · the same 360 locked test pictures of NEU-DET, ... · this test was looked at 23 times'."""
    counts = [len(runs) for runs in subject.arms.values()]
    runs = f"{text.counted(counts[0], 'run')} each" if len(set(counts)) == 1 else f"{', '.join(map(str, counts))} runs"
    return f"{', '.join(words.plain(arm, 40) for arm in subject.arms)} · {runs} · {_test(subject)}"


def _test(subject: Subject) -> str:
    found = subject.result
    first = None if subject.rows.empty else subject.rows.iloc[0]
    pictures = found.get("images") or (first is not None and first["images"]) or 0
    good = found.get("good_images", first["good_images"] if first is not None else 0) or 0
    looks = found.get("looks") or (len(cached("looks", first["test_set_id"])) if first is not None else 0)
    dataset = words.plain(found.get("dataset") or (first["dataset"] if first is not None else "–"), 40)
    clean = text.count(good) if good else "none"
    return (f"the same {text.count(pictures)} locked test pictures of {dataset}, {clean} of them good · this test was looked at "
            f"{text.counted(looks, 'time')}")


def earlier(current: str) -> None:
    """Comparisons and experiments made before, to come back to."""
    experiments = {e["run_id"]: e for e in jobs.experiments()}
    runs = [r for r in jobs.recent(limit=30, recipes=("compare", "experiment")) if r.run_id != current]
    hidden = {e["comparison"] for e in experiments.values()}                                # it stands with its experiment
    runs = [r for r in runs if r.run_id not in hidden]
    if not runs:
        return
    st.subheader("Earlier comparisons", anchor=False)
    for run in runs:
        with st.container(horizontal=True, vertical_alignment="center", key=f"before_{run.run_id}"):
            words.pill(run)
            st.button(words.plain(run.name, 60), type="tertiary", key=f"see_{run.run_id}", on_click=look_at, args=(run,))
            st.caption(" · ".join(filter(None, [_told(run, experiments), words.when(run.created_at)])), width="content")


def _told(run: jobs.RunStatus, experiments: dict[str, dict[str, object]]) -> str:
    found, demo = experiments.get(run.run_id), "Demo plant · " if run.plant == "demo" else ""
    if found is None or found["sentence"]:
        return demo + words.plain((found or run.result).get("sentence", ""), 200)
    return f"{demo}Experiment, {found['done']} of {found['total']} runs done"


def look_at(run: jobs.RunStatus) -> None:
    """Another one: what was chosen in the one before does not suit it."""
    forget()
    st.query_params.from_dict({"experiment" if run.recipe == "experiment" else "run": run.run_id})


def forget() -> None:
    for key in ("view", "contest_at", "contest_kind", "contest_class", "difference"):
        st.session_state.pop(key, None)
