"""How good a set is, measured: asking for it, and reading what was found, each figure with what it means.

Reads the result of a `measure-synthesis` run and its pairs of pictures. Knows nothing of how a figure is reached.
"""

from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import form, model_view, run_panel, synthesis_figures, text, training_form, words
from pages.components import synthesis_means as means_of
from pages.components.cached import cached

NONE = {"": "None"}
MANY = 0.05              # of the pictures: more copies are worth a word, where a measurement does not say itself whether they are many
PAIRS = 6


def show(run_id: str) -> None:
    made, runs = jobs.synthetic(run_id), measured(run_id)
    if not runs:
        with st.container(border=True, key="not_measured"):
            st.markdown("#### :material/straighten: Not measured yet")
            st.markdown("Four questions are asked, for each kind of defect: how far from real pictures, how many are copies of what was "
                        "learned from, how varied, and whether a detector finds what the labels say. Nothing is kept or refused by it.")
            _ask(made)
        return
    run_panel.show(runs[0].run_id, _found)
    if not runs[0].is_open:
        with st.expander("Measure again", icon=":material/straighten:", key="measure_again"):
            _ask(made)


def measured(run_id: str) -> list[jobs.RunStatus]:
    """Measurements of a set, newest first."""
    runs = jobs.recent(limit=100, recipes=("measure-synthesis",))
    return [r for r in runs if run_id in (r.config.get("synthetic"), r.result.get("synthetic", {}).get("run"))]


@st.cache_data(ttl=30, show_spinner=False)               # asked for at each key press
def missed(run_id: str) -> dict[str, int]:
    """Made pictures by file, and how many of each one's labels the detector of the newest measurement with one has not found."""
    for run in measured(run_id):
        answers = means_of.head(run.run_id, "quality").get("labels") if run.state == "completed" else None
        if answers:
            return {file: found.count(False) for file, found in answers.items()}
    return {}


def _ask(made: dict[str, Any]) -> None:
    models = model_view.usable(cached("models"))
    own = models.loc[models["snapshot_id"] == made["snapshot_id"], "model_id"].tolist()
    names = NONE | {m.model_id: words.short(m.name) for m in models.itertuples()}
    detector = st.selectbox("Detector that looks at the labels", list(names), list(names).index(own[0]) if own else 0, names.__getitem__,
                            key="measure_detector", width=420, help="Best one that was trained on this dataset without these pictures.")
    with st.expander("Advanced", icon=":material/tune:", key="measure_more"):
        values = form.fields(jobs.MeasureSynthesis, ("extractor", "seed"), "measure")
    config = jobs.MeasureSynthesis(synthetic=made["run_id"], name=str(made["name"]), detector=str(detector), **values)
    training_form.promise(config)
    if st.button("Measure it", type="primary", icon=":material/straighten:", key="measure_go"):
        run_panel.start(config)


# ---- what was found

def _found(status: jobs.RunStatus) -> None:
    if status.state != "completed":
        if status.is_open:
            st.skeleton(200)
        run_panel.log(status.run_id)
        return
    result = status.result
    _tiles(result)
    st.markdown("**How far from real pictures**, kind by kind")
    _distance(result, status.run_id)
    _copies(result, status.run_id)
    with st.expander("All figures", icon=":material/table:", key=f"figures_{status.run_id}"):
        st.dataframe(table(result["classes"]), hide_index=True, alt="Figures of each kind of defect")
        st.caption(f"On {text.count(result['images'])} pictures, seen by {words.plain(result['extractor'])}. Distances are KID × 1,000; "
                   "the interval holds the true value 95 times of 100.")
    run_panel.log(status.run_id)


def _tiles(result: dict[str, Any]) -> None:
    """The four answers over all kinds, each with what it means."""
    grid = st.grid(4, min_column_width=150)
    grid.metric("Distance (KID)", "–" if result["kid"] is None else f"{result['kid']:.1f}", border=True,
                help="How unlike the whole set is to real pictures that nothing was made from. 0 is no difference; below "
                     "what real pictures get among themselves it means nothing more.")
    grid.metric("Copies", share(result["copied"]), border=True,
                help="Made pictures nearer to one learned from than 99 of 100 real ones are to another. By chance it is "
                     f"{share(result.get('copied_chance') or 0.01)}: more where there are few real ones.")
    grid.metric("Variety", share(result["diversity"]), border=True,
                help="How far made pictures of a kind lie from each other, of what real ones do. Much below 100 %: much the same, again "
                     "and again.")
    grid.metric("Labels found", share(result["found"]), border=True,
                help="Of the made labels, those that the detector finds where they are.")
    for line in said(result, jobs.synthetic(result["synthetic"]["run"])["settings"]):
        st.markdown(line)


def share(value: float | None) -> str:
    return "–" if value is None else text.percent(value)


def said(result: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """The figures in sentences. `settings`: how the set was made."""
    lines = [f":material/straighten: {distance(result['classes'])}", f":material/content_copy: {copies(result, settings)}"]
    if result["diversity"] is not None:
        lines.append(f":material/diversity_2: Made pictures of one kind differ {share(result['diversity'])} as much as real ones do.")
    rows = [r for r in result["classes"] if r.get("found") is not None]
    if rows:
        real = [r for r in rows if r.get("real_found") is not None]
        of_real = sum(r["real_found"] * r["real_labels"] for r in real) / max(1, sum(r["real_labels"] for r in real))
        beside = f"; of real ones it finds {share(of_real)}" if real else ""
        lines.append(f":material/center_focus_strong: The detector {words.plain(result['detector'], 40)} finds {share(result['found'])} of "
                     f"the made labels{beside}. It informs only: what it misses may be wrong, or new to it.")
    elif not result["detector"]:
        lines.append(":material/center_focus_strong: No detector looked at the labels.")
    return lines


def distance(rows: list[dict[str, Any]]) -> str:
    """How many kinds lie as near as real pictures do, how many surely farther, and of how many one cannot tell."""
    known = [r for r in rows if r["kid"] is not None and r["chance"] is not None]
    if not known:
        return "The distance could not be measured; the reason stands below."
    near = [r for r in known if r["kid"] <= r["chance"]]
    far = sorted((r for r in known if r["low"] > r["chance"]), key=lambda r: -r["kid"])
    left = len(known) - len(near) - len(far)
    parts = [f"{text.count(len(near))} of {text.count(len(known))} {'kind lies' if len(known) == 1 else 'kinds lie'} no farther from real "
             "pictures than these do from each other by chance"]
    parts += [f"{text.count(len(far))} surely farther: {words.plain(', '.join(r['class_name'] for r in far), 200)}"] if far else []
    parts += [f"of {text.count(left)} nothing sure can be said from so few pictures"] if left else []
    return "; ".join(parts) + "."


def copies(result: dict[str, Any], settings: dict[str, Any]) -> str:
    """Where a real picture is kept but for a place, nearness is meant; where a picture was drawn anew, it is not."""
    if result["copied"] is None:
        return "Copies could not be counted: too few real pictures to say what is near."
    chance = result.get("copied_chance") or 0.01
    told = f"{share(result['copied'])} of the pictures are so near to a real one that they count as copies; of wholly new ones it would " \
           f"be about {share(chance)}."
    if not result.get("copying", result["copied"] > MANY):
        return told
    if settings.get("method") == "prior" and settings.get("start") in ("image", "noise"):
        return f"{told} They teach a model little that is new: more strength, or another start, helps."
    return f"{told} That is meant here: all but the defect is the picture that it was put into."


def _distance(result: dict[str, Any], key: str) -> None:
    rows = [r for r in result["classes"] if r["kid"] is not None]
    if rows:
        synthesis_figures.distances(rows, f"kid_{key}")
        st.caption("Blue: the made pictures with their interval. Grey: other real pictures of the kind, measured the same way. Amber: what "
                   "chance alone makes of real ones, 95 times of 100; left of it a distance says nothing.")
    for row in result["classes"]:
        if row["kid"] is None:
            st.caption(f":material/info: **{words.plain(row['class_name'], 40)}** has no distance. {words.plain(row['why'], 300)}")


def _copies(result: dict[str, Any], run_id: str) -> None:
    """The made pictures that are most like a real one, beside it."""
    if not result["pairs"]:
        return
    st.markdown("**The closest pairs:** made, and the real picture it is most like")
    st.caption("The first number says how near: from 1 down it counts as a copy, nearer than 99 of 100 real pictures are to another. "
               "Behind it how far apart the two lie, and how far apart real pictures of the kind lie from the one most like them.")
    rows = {r["class_name"]: r for r in result["classes"]}
    grid = st.grid(3, min_column_width=150, gap="small")
    for pair in result["pairs"][:PAIRS]:
        with grid.container(key=f"pair_{pair['file'].removesuffix('.png')}"):
            try:
                st.image(jobs.run_file(run_id, f"quality/{pair['file']}").read_bytes(), width="stretch",
                         alt=f"{pair['made']} beside the real picture it is most like")
            except jobs.NotFoundError:
                st.caption(":material/hide_image: The pair is not there any more.")
            own = "made from it" if pair["parent"] else "not made from it"
            mark = ":orange-badge[Copy]" if pair["ratio"] < 1 else ""
            st.caption(f"{mark} {words.plain(pair['class_name'], 30)} · {own} · {pair['ratio']:.2f} · "
                       f"{apart(pair, rows.get(pair['class_name'], {}))}")


def apart(pair: dict[str, Any], row: dict[str, Any]) -> str:
    """'0.12 apart, real ones 0.31 to 0.55': the middle half of these."""
    real = row.get("real_distances")
    return f"{pair['distance']:.2f} apart" + (f", real ones {real[1]:.2f} to {real[3]:.2f}" if real else "")


def middle(distances: list[float] | None) -> str:
    """The middle half of distances to the nearest."""
    return "–" if not distances else f"{distances[1]:.2f} to {distances[3]:.2f}"


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """What is behind the tiles."""
    def span(row: dict[str, Any], low: str, high: str) -> str:
        return "–" if row[low] is None else f"{row[low]:.1f} to {row[high]:.1f}"

    return pd.DataFrame({
        "Kind": [words.short(r["class_name"]) for r in rows], "Made": [r["made"] for r in rows],
        "Compared with": [r["reference"] for r in rows], "Distance": [r["kid"] for r in rows],
        "Interval": [span(r, "low", "high") for r in rows], "Real to real": [r["floor"] for r in rows],
        "By chance": [r["chance"] for r in rows],
        "Copies": [share(r["copied"]) for r in rows], "Copies by chance": [share(r.get("copied_chance")) for r in rows],
        "Apart": [middle(r.get("distances")) for r in rows], "Real ones apart": [middle(r.get("real_distances")) for r in rows],
        "Variety": [share(r["diversity"]) for r in rows],
        "Labels found": [share(r.get("found")) for r in rows], "of real ones": [share(r.get("real_found")) for r in rows]})
