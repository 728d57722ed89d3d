"""Pictures in: files, a folder, a zip, a path on this machine or the sample pictures, and what is known about them.

Hands open files to jobs.submit as they are; until then they lie on a shelf on disk, see `shelf`.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import streamlit as st

from backend import jobs
from pages.components import form, model_view, shelf, words
from pages.components.cached import cached
from pages.components.shelf import Shelf

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "demo" / "samples"
WITHOUT = "none"         # as `Inspect.anomaly` has it
WAYS = {"files": "Files or a zip", "directory": "A folder"}


def drop_zone(name: str, what: str) -> Shelf | None:
    """The uploader, and what it has taken so far; `name` is that of the form."""
    way = st.segmented_control("What to upload", list(WAYS), default="files", required=True, format_func=WAYS.__getitem__,
                               key=f"{name}_way", label_visibility="collapsed")
    key, more = shelf.uploader_key(name, way), dict(on_change=shelf.set_aside, args=(name, way))
    if way == "directory":
        st.file_uploader(f"Drop a folder of {what} here", accept_multiple_files="directory", key=key, **more)
    else:
        st.file_uploader(f"Drop {what} or a zip here", accept_multiple_files=True, key=key, **more)
    with st.container():                   # always there, so that no field below is drawn anew and forgets what is typed into it
        if taken := shelf.of(name):
            _ready(name, taken)
    return taken


def _ready(name: str, taken: Shelf) -> None:
    shelf.give_back()
    with st.container(horizontal=True, vertical_alignment="center"):
        first = ", ".join(words.plain(n, 40) for n in taken.names[:3]) + (", …" if len(taken) > 3 else "")
        st.markdown(f":material/check_circle: **{counted(len(taken))} ready**, {taken.bytes / 1e6:,.1f} MB: {first}", width="content")
        st.button("Remove", icon=":material/close:", type="tertiary", key=f"{name}_remove", on_click=shelf.clear, args=(name,))


def counted(n: int) -> str:
    return f"{n:,} {'file' if n == 1 else 'files'}"


def submit(config: jobs.Config, files: Iterable[tuple[str, BinaryIO]] = (), plant: str = "real") -> str | None:
    """Hand over and return the run's id; where it cannot start, say why and return None."""
    try:
        with st.spinner("Handing the pictures over …"):
            return jobs.submit(config, files, plant=plant)
    except jobs.DiffspectError as error:
        words.sorry(error)
        return None


def samples() -> list[Path]:
    """The sample pictures that come with the program."""
    return sorted(p for p in SAMPLES.glob("*") if p.is_file() and not p.name.startswith("."))


def submit_samples(paths: list[Path]) -> str | None:
    """The sample pictures, as a batch of the demo plant's line that needs a look."""
    lines, products = cached("lines_now", "demo"), cached("choices", "demo")["products"]
    worst = lines.iloc[lines["state"].map({"act": 0, "look": 1}).fillna(2).argmin()]["line"] if len(lines) else "Line 2"
    models = cached("models")
    own = models.loc[models["run_id"] == "", "model_id"]                     # the demo's own model, whichever is in use
    config = jobs.Inspect(model=own.iloc[0] if len(own) else "", anomaly=WITHOUT, line=str(worst),       # it knows other parts, not these
                          product=products[0] if products else "", plant="demo")
    with ExitStack() as stack:
        return submit(config, [(p.name, stack.enter_context(p.open("rb"))) for p in paths], plant="demo")


def last_time(plant: str) -> dict[str, Any]:
    """The details given with the last batch of this plant."""
    before = jobs.recent(limit=1, recipes=("inspect",), plant=plant)
    return before[0].config if before else {}


def details(plant: str) -> dict[str, Any]:
    """Line, product, lot, camera, time, whether these are master parts, and whether the batch counts: fields of `Inspect`."""
    known, last = cached("choices", plant), last_time(plant)
    values: dict[str, Any] = {}
    grid = st.grid(4, min_column_width=150)
    for name in ("line", "product", "camera"):
        values[name] = one_of(grid, name, known[f"{name}s"], last.get(name, ""))
    values["lot"] = grid.text_input("Lot", last.get("lot", ""), key="batch_lot").strip()
    values["captured_at"] = taken_at()
    values["master"] = masters(values["line"])
    values["count"] = "auto" if values["master"] else counting(values["line"])
    return values


def one_of(place: Any, name: str, options: list[str], start: str, key: str = "batch") -> str:
    """Choose a known name or type a new one."""
    names = sorted({*options, start} - {""})
    chosen = place.selectbox(name.capitalize(), names, names.index(start) if start else None, key=f"{key}_{name}",
                             accept_new_options=True, placeholder="Choose or type")
    return (chosen or "").strip()


def taken_at() -> str | None:
    """A time is asked for only when the pictures do not know it; the plant's time, ISO 8601."""
    ways = ["From the pictures", "I set it"]
    if st.segmented_control("When were they taken?", ways, default=ways[0], required=True, key="batch_when",
                            help="From the camera's data or the file name; where neither tells, the time of arrival stands.") == ways[0]:
        return None
    at = st.datetime_input("Taken at (plant time)", value="now", key="batch_at")
    return at.isoformat() if at else None


def masters(line: str) -> bool:
    """Known parts that are photographed again each shift, to watch camera and light."""
    chosen = st.toggle("These are master parts", False, disabled=not line, key="batch_master",
                       help="Known parts that you photograph again each shift. They never count in any rate; they tell a change of camera, "
                            "lens or light from one of the process. See Control charts, Checks.")
    if chosen:
        st.caption("They never count. A unit pattern, under Advanced, tells one part from another by its file name.")
    return bool(chosen)


def counting(line: str) -> str:
    """The switch that puts a batch into the plant's trends."""
    if not line:
        st.toggle("Count in plant trends", False, disabled=True, key="batch_count_off")
        st.caption("Off: without a line these pictures have no place in the trends.")
        return "no"
    if not st.toggle("Count in plant trends", True, key="batch_count"):
        st.caption("Off: you see the results here; the trends stay as they are.")
        return "no"
    anyway = st.checkbox("also pictures that belong to a dataset", key="batch_anyway",
                         help="Pictures a model was trained or tested on say little about the plant, so they stay out unless you ask.")
    return "yes" if anyway else "auto"


def advanced() -> tuple[str, dict[str, Any]]:
    """A path on this machine instead of an upload, the models, and patterns of file names."""
    with st.expander("Advanced", icon=":material/tune:"):
        path = st.text_input("Folder, zip or picture on this machine, instead of an upload", key="batch_path").strip()
        left, right = st.columns(2)
        model = _model(left, "Detector", "detector", {"": "The one in use"}, "batch_model")
        used = "".join(looks_beside())
        without = {"": f"The one in use: {words.short(used)}", WITHOUT: "None"} if used else {"": "None is in use"}
        anomaly = _model(right, "Anomaly model beside it", "anomaly", without, "batch_anomaly")
        return path, {"model": model, "anomaly": anomaly, **form.fields(jobs.Inspect, ("captured_pattern", "unit_pattern"), "batch")}


def _model(place: Any, label: str, kind: str, special: dict[str, str], key: str) -> str:
    """The id of a model of one kind, or one of the special answers."""
    models = model_view.usable(cached("models", kind))
    names = special | {i: words.short(n) for i, n in zip(models["model_id"], models["name"], strict=True)}
    return str(place.selectbox(label, list(names), format_func=names.__getitem__, key=key))


def looks_beside() -> list[str]:
    """The name of the anomaly model in use, if there is one."""
    return [str(n) for n in cached("models", "anomaly").query("promoted")["name"]]
