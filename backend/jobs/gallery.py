"""A synthetic set as pages show it: its head, its pictures with what people said of them, and each picture encoded for the browser.

From the run's own files, so that a verdict shows at once; pictures are drawn in a cell. Knows nothing of DuckDB, of how a picture was
made, or of pages.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from backend import rundir, verdicts
from backend.errors import ConfigError, NotFoundError
from backend.jobs import cells, events, runs

WHATS = ("result", "mask", "original", "outlined")
# What an item of an older set does not say: those were all made by perturbation.
_SILENT: dict[str, Any] = dict(mask="", boxes=[], boxes_from="mask", parent="", donor="", method="perturb", source="", seed=None,
                               attempt=None, opacity=None, area=None, prompt="", adapter="", strength=None, guidance=None, steps=None)


def synthetic(run_id: str) -> dict[str, Any]:
    """What stands in the set's head.json, each item with all keys and its `verdict` ('' where nobody has said); and `run_id`, `verdicts`
    ({file: verdict}) and `verdict_counts` ({verdict: how many}). Raises NotFoundError."""
    head, said = _head(run_id), verdicts.verdicts(run_id)
    unnamed = _SILENT | {"class_name": (head.get("classes") or [""])[0]}
    items = [{**unnamed, **item, "verdict": said.get(item["file"], "")} for item in head["items"]]
    counts = dict.fromkeys(verdicts.VERDICTS, 0)
    for item in items:
        counts[item["verdict"]] += 1
    return {**head, "run_id": run_id, "items": items, "verdicts": said, "verdict_counts": counts}


def judge(run_id: str, given: dict[str, str], by: str = "") -> str:
    """Write down what a person said of pictures of a set. Raises ConfigError; NotFoundError also where retention let go of it meanwhile:
    either it sees the verdict and leaves the set, or the person hears of it here. Returns the id to undo it by."""
    verdicts.check(given, {item["file"] for item in _head(run_id)["items"]})
    plant = rundir.read_json(rundir.run_path(run_id) / "job.json")["plant"]
    said = events.record(verdicts.RECIPE, {"run_id": run_id, "verdicts": given}, plant, by)
    _head(run_id)
    return said


def picture(run_id: str, file: str, width: int | None, what: str, format: str) -> bytes:
    """One of a made picture's views, encoded, `width` pixels wide if given. Raises NotFoundError, ConfigError, ImageError."""
    if what not in WHATS:
        raise ConfigError(f"A made picture is shown as {', '.join(WHATS)}, not as {what!r}.")
    item = next((i for i in _head(run_id)["items"] if i["file"] == file), None)
    if item is None:
        raise NotFoundError(f"The set has no picture {file!r}.")
    folder = rundir.run_path(run_id) / "synthetic"
    return cells.ask("made", str(folder), item, what, width, format, of=_files(folder, item, what))


def _files(folder: Path, item: dict[str, Any], what: str) -> tuple[str, ...]:
    """What is drawn, for `cells.ask`: the view, and its files as they are now."""
    files = [folder / item[name] for name in ("file", "mask") if item.get(name)]
    return what, *(f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}" if p.exists() else f"{p} is missing" for p in files)


def _head(run_id: str) -> dict[str, Any]:
    """The set's head.json; not for changing. Raises NotFoundError."""
    path = rundir.run_path(run_id) / "synthetic" / "head.json"
    if path.with_name(runs.LET_GO).exists():
        raise NotFoundError("The pictures of this set were let go by retention: nobody had accepted one, and nothing was built on them.")
    if path.with_name(runs.SET_ASIDE).exists():
        raise NotFoundError("Retention is just letting go of this set, unless somebody wants it. Look again in a moment.")
    if not path.exists():
        raise NotFoundError("This run has made no set of synthetic pictures yet.")
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, written_ns: int) -> dict[str, Any]:
    """Two thousand items are a megabyte: read once, not for every picture."""
    head: dict[str, Any] = rundir.read_json(path)
    return head
