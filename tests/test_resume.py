"""Training killed at any moment and taken up again ends with the very weights of a run that was never disturbed."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import squares

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 4


class Killed(BaseException):
    """Stands for a kill where a process of its own would only cost time."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    squares.draw(folder / "data")
    checkpoint = straight(folder)
    assert checkpoint is not None and checkpoint["epoch"] == EPOCHS
    return checkpoint


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a program that writes beside its run would leave something."""
    for name in ("home", "elsewhere", "temporary"):
        (tmp_path / "home" / name).mkdir(parents=True)
    return tmp_path / "home"


def start(folder: Path, home: Path) -> "subprocess.Popen[str]":
    places = dict(HOME=str(home / "home"), TMPDIR=str(home / "temporary"), DIFFSPECT_DATA=str(home.parent / "data"), PYTHONPATH=str(ROOT))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "ULTRALYTICS_", "XDG_", "OMP_", "MPL"))}
    return subprocess.Popen([sys.executable, "-W", "error", "-m", "tests.squares", str(folder), str(EPOCHS)], cwd=home / "elsewhere",
                            env={**kept, **places}, stdout=subprocess.PIPE, text=True)


def straight(folder: Path, stop_at: str = "") -> dict[str, Any] | None:
    from backend.detection import trainer

    def tell(epoch: int, message: str, metrics: dict[str, float]) -> None:
        if stop_at and message == stop_at:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(trainer, "cores", squares.one_core)
        trainer.fit(squares.config(EPOCHS), folder / "data" / "data.yaml", folder, tell)
    return trainer.load_checkpoint(folder)


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, but for the time it took."""
    import torch

    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds"}:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    else:
        assert a == b, where


def test_killed_and_resumed_is_undisturbed(tmp_path: Path, home: Path, whole: dict[str, Any]) -> None:
    """SIGKILL in the third epoch of four; then on to the end. Both processes without a network, and writing nowhere else."""
    killed = tmp_path / "killed"
    squares.draw(killed / "data")
    victim = start(killed, home)
    assert victim.stdout is not None
    heard = []
    with victim:
        for line in victim.stdout:
            heard.append(line.strip())
            if line.startswith("epoch 3, batch 2"):
                victim.kill()
    assert "epoch 2 done" in heard and "epoch 3 done" not in heard, heard

    second = start(killed, home)
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert "epoch 2 done" not in said and "taken up again" in said and "epoch 4 done" in said, said

    from backend.detection import trainer

    assert_same(whole, trainer.load_checkpoint(killed))
    assert [p.name for p in killed.glob("best-*")] == [f"best-{whole['best_epoch']}.pt"]
    assert [p for p in home.rglob("*") if p.is_file()] == []
    assert {p.parts[len(tmp_path.parts) + 1] for p in (tmp_path / "data").rglob("*")} == {"cache"}


def test_any_moment(tmp_path: Path, whole: dict[str, Any]) -> None:
    """In the warm-up before the first checkpoint, between epochs, while it looks at val in an epoch without mosaics, at the very end."""
    squares.draw(tmp_path / "data")
    for moment in ("epoch 1, batch 2 of 3", "epoch 2 done", "epoch 4, checking on val", "epoch 4 done"):
        straight(tmp_path, stop_at=moment)
    assert_same(whole, straight(tmp_path))


def test_killed_after_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last epoch is done, the artifact is not: the recipe goes on from there, trains no more, and tells each curve once."""
    from backend import rundir
    from backend.detection import train, trainer
    from backend.jobs.report import Reporter

    monkeypatch.setattr(trainer, "cores", squares.one_core)
    material = squares.material(tmp_path / "data")
    run_dir = tmp_path / "run"
    (run_dir / "parts").mkdir(parents=True)

    class Deadly(Reporter):
        def __call__(self, *, step: int, total: int, message: str = "", **metrics: float) -> None:
            super().__call__(step=step, total=total, message=message, **metrics)
            if message == "scoring":
                raise Killed

    with pytest.raises(Killed):
        train.make(squares.config(1), material, run_dir, Deadly(run_dir))
    assert not (run_dir / "model").exists()

    said: list[str] = []
    report = Reporter(run_dir)
    train.make(squares.config(1), material, run_dir, lambda **k: (said.append(k["message"]), report(**k)))
    assert not [m for m in said if "batch" in m]
    assert (run_dir / "metrics.jsonl").read_text().count('"step"') == 1
    assert len(rundir.rows(run_dir, "models")) == 1
