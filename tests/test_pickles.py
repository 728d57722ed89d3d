"""Weights and data from outside run no code: not by the weights' path, not by an upload, whatever the file was saved with."""

import ast
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend import rundir
from backend.config import Import
from backend.data import importer
from backend.detection import start
from backend.errors import InputError
from tests import squares

ROOT = Path(__file__).resolve().parents[1]


class Evil:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path, how: str) -> None:
        self.mark, self.how = mark, how

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        command = f"open({str(self.mark)!r}, 'w').close()"
        return {"system": (os.system, (f"touch {self.mark}",)), "exec": (exec, (command,)), "eval": (eval, (command,))}[self.how]


def saved(path: Path, form: str, evil: Evil) -> Path:
    match form:
        case "zip":
            torch.save({"model": evil, "ema": None, "train_args": {}}, path)
        case "legacy":
            torch.save({"model": evil}, path, _use_new_zipfile_serialization=False)
        case "state dict":
            torch.save({"model": {"w": torch.zeros(2), "x": evil}, "ema": evil}, path)
        case _:
            path.write_bytes(pickle.dumps(evil))
    return path


def test_the_trap_works(tmp_path: Path) -> None:
    """Or the tests below would find nothing."""
    for how in ("system", "exec", "eval"):
        pickle.loads(pickle.dumps(Evil(tmp_path / how, how)))
        assert (tmp_path / how).exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "state dict", "pickle"])
@pytest.mark.parametrize("how", ["system", "exec", "eval"])
def test_weights_that_hold_code_are_refused_unrun(tmp_path: Path, form: str, how: str) -> None:
    file = saved(tmp_path / "weights.pt", form, Evil(tmp_path / "mark", how))
    with pytest.raises(InputError, match="weights.pt cannot be used: it is no plain Ultralytics weights file."):
        start.given(str(file))
    assert not (tmp_path / "mark").exists() and start.key(str(file)), "its hash is all that else is asked of it"


def test_an_upload_that_holds_code_is_read_as_pictures_alone(data_folder: Path, tmp_path: Path) -> None:
    """Beside pictures, in a zip, and as the one file that a person chose."""
    folder, evil = tmp_path / "in", Evil(tmp_path / "mark", "system")
    squares.draw(folder)
    for form in ("zip", "pickle"):
        saved(folder / f"{form}.pt", form, evil)
    np.save(folder / "labels.npy", np.array([evil], object), allow_pickle=True)
    (folder / "data.yaml").write_text(f"names: !!python/object/apply:os.system ['touch {tmp_path / 'mark'}']\n")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as z:
        for path in folder.rglob("*"):
            z.write(path, path.relative_to(folder))
    for path in (folder, tmp_path / "in.zip"):
        config = Import(path=str(path), name="x")
        assert importer.run(config, rundir.create("import", config.to_json()), lambda **_: None)["snapshot_id"]
    config = Import(path=str(folder / "pickle.pt"), name="x")
    with pytest.raises(InputError):
        importer.run(config, rundir.create("import", config.to_json()), lambda **_: None)
    assert not (tmp_path / "mark").exists()


NAMED = {"load", "loads", "torch_safe_load", "eval", "exec", "unsafe_load", "system"}


def test_nothing_in_the_source_unpickles_or_evaluates_what_comes_from_outside() -> None:
    wrong = []
    for path in [*(ROOT / "backend").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (getattr(node.func, "attr", getattr(node.func, "id", "")) in NAMED or
                                               any(k.arg == "shell" for k in node.keywords)):
                why = _unsafe(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})
                wrong += [f"{path.relative_to(ROOT)} {why}"] if why else []
    ours = ["backend/cell.py pickle.loads", *["backend/jobs/spread.py pickle.loads"] * 3]
    assert wrong == ours, "those read what the app, or a node of its cluster, has written"


def _unsafe(called: str, given: dict[str | None, str]) -> str:
    match called:
        case "torch.load":
            return "" if given.get("weights_only") == "True" else called
        case "torch_safe_load":
            return "" if given.get("safe_only") == "True" else called
        case "np.load":
            return "" if given.get("allow_pickle", "False") == "False" else called
        case "pickle.load" | "pickle.loads" | "eval" | "exec" | "yaml.load" | "yaml.unsafe_load" | "os.system" | "joblib.load":
            return called
        case _:
            return f"{called} with a shell" if given.get("shell") == "True" else ""
