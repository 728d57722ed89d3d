"""What the product makes of a bad upload (see tests.hostile): every way in that takes it, and what a person is told.

    attempt(case, root) -> Told      in this process, with `root/data` as the data folder

Anything but a DiffspectError comes out as it is: that is a mistake of the product.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from backend import jobs, rundir
from backend.config import RECIPES, Import
from backend.data import coco, files, importer
from backend.data.files import Refusal
from backend.errors import DiffspectError
from backend.inspection import engine, reading
from backend.jobs import runs, worker
from tests import hostile
from tests.hostile import Case

LONGEST = 1500                         # characters of a sentence
# What only programmers should ever see. A kind of error with its colon, an address in memory, a file of ours with its line.
INSIDE = re.compile(r"Traceback|File \"|\.py\b|site-packages|\bat 0x[0-9a-f]+|\b[A-Z][A-Za-z]+(Error|Exception)\b|<class|\bNoneType\b")


@dataclass
class Told:
    """How often something was used, refused or told, and every sentence that came with it."""

    counts: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    def add(self, what: str, sentence: str = "") -> None:
        self.counts[what] += 1
        self.said += [sentence] if sentence else []


def attempt(case: Case, root: Path, runtime: str = "onnxruntime-cpu") -> Told:
    os.environ["DIFFSPECT_DATA"] = str(root / "data")
    told = Told()
    match case.kind:
        case "onnx":
            assert case.folder is not None
            _network(case.folder, runtime, told)
        case "configs":
            _job(case, told) if isinstance(case.config, bytes) else _settings(case, told)
        case _:
            _upload(case, root, told)
    return told


def _upload(case: Case, root: Path, told: Told) -> None:
    """Inspected first, as a batch; then imported; labels also as what comes back from an annotation tool."""
    rng = np.random.default_rng(1)
    good = [(f"good{i}.png", hostile.encoded(hostile.picture(rng))) for i in range(2)]
    staged = rundir.create("import", Import(name="hostile").to_json(), state="staged")
    jobs._fill(staged / "inbox", [(name, BytesIO(data)) for name, data in (*case.files, *good)])
    run = rundir.publish(staged)
    fits = engine.Engine.of(hostile.head_of(b""), lambda pictures: pictures)
    try:
        with files.listing(run / "inbox") as entries, reading.pictures(entries, fits) as found:
            _items(found, told)
    except DiffspectError as error:
        told.add("told", str(error))
    if case.kind == "annotations":
        try:
            coco.returned(str(run / "inbox" / "000000.bin"), case.files[0][0])
        except DiffspectError as error:
            told.said.append(str(error))
    try:
        head = importer.run(Import(name="hostile"), run, lambda **_: None)
        told.add("imported")
        told.said += [str(r["reason"]) for r in rundir.rows(run, "refused").to_pylist()] + head["notes"]
    except DiffspectError as error:
        told.add("told", str(error))


def _items(found: Iterable[Any], told: Told) -> None:
    for item in found:
        told.add("refused", item.reason) if isinstance(item, Refusal) else told.add("read")


def _network(folder: Path, runtime: str, told: Told) -> None:
    try:
        opened = engine.load(folder, runtime)
        boxes = opened.predict([np.zeros((50, 40, 3), np.uint8)])
        assert boxes[0].shape[1:] == (6,)
        told.add("read")
    except DiffspectError as error:
        told.add("refused", str(error))


def _settings(case: Case, told: Told) -> None:
    try:
        RECIPES[case.recipe].from_json(case.config)
        told.add("read")
    except DiffspectError as error:
        told.add("refused", str(error))


def _job(case: Case, told: Told) -> None:
    run = rundir.create(case.recipe, {})
    (run / "job.json").write_bytes(case.config)
    worker.carry_out(run)
    told.add("told", str(rundir.read_json(run / "state.json")["message"]))
    runs.recent()                                                # the list of runs, whatever is among them
    try:
        runs.status(run.name)
    except DiffspectError as error:
        told.add("told", str(error))


def not_plain(sentence: str, root: Path) -> str:
    """Why a sentence is not one for a person; '' where it is."""
    if str(root / "data") in sentence:
        return "it shows where data lies"
    if found := INSIDE.search(sentence):
        return f"it shows the inside of the program: {found[0]}"
    if len(sentence) > LONGEST:
        return f"it is {len(sentence):,} characters long"
    return "" if sentence.isprintable() else "it has characters that cannot be printed"


def written(root: Path) -> dict[str, int]:
    """Files and folders below `root` but the data folder's, by name, with their size."""
    found = {}
    for folder, names, files_ in os.walk(root):
        if Path(folder) == root and "data" in names:
            names.remove("data")
        found.update({os.path.join(folder, n): os.lstat(os.path.join(folder, n)).st_size for n in files_} | {folder: -1})
    return found


def outside(root: Path) -> list[str]:
    """What lies in the data folder where nothing of an upload belongs."""
    data = root / "data"
    known = ("images", "runs", "settings", "supervisor.log")
    strange = [p.name for p in data.iterdir() if p.name not in known] if data.exists() else []
    kept = [p.relative_to(data).as_posix() for p in (data / "images").rglob("*") if p.is_file()] if (data / "images").exists() else []
    return strange + [p for p in kept if not re.fullmatch(r"images/[0-9a-f]{2}/[0-9a-f]{64}\.\w{3,4}", p)]
