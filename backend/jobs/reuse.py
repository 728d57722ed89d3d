"""Which stages of a guided run are there already: those whose artifact's key a run has kept.

The recipes reuse by the same keys (`ddpm.key`, `repository.key`, `teach.key`, `fuse.key`), but load torch with them, and an
estimate is asked for by a page. So they are put together here once more, each from the one before; a test holds both against
each other. Knows nothing of how long a stage takes.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from backend import rundir
from backend.config import LATER, Config, TrainDiffusion, TrainDistilled

KINDS = {"diffusion": "denoiser", "repository": "repository", "backbone": "backbone", "fused": "fused"}      # stage -> what it leaves
FORMATS = {"diffusion": 2, "repository": 1, "backbone": 1, "fused": 2}                                       # as in the recipes
NAMES = {"name", "dataset", "denoiser", "repository", "backbone", "weights"}             # what they point to counts, not they
MAKERS = ("train-diffusion", "build-repository", "teach-backbone", "train-fused", "train-distilled", "train-anomaly")


def there(config: TrainDistilled, asked: dict[str, Config]) -> set[str]:
    """Stages that need not be carried out. `asked`: what the run asks of each, with no choice left to a preset. Raises NotFoundError."""
    kept = set(_kept())
    return {stage for stage, key in keys_of(config, asked).items() if (KINDS[stage], key) in kept}


def keys(config: TrainDistilled, asked: dict[str, Config], snapshot_id: str) -> dict[str, str]:
    """The key of each stage's artifact. The teacher has none here where its start is a file or a backbone of another run."""
    found = {"diffusion": _key("diffusion", asked["diffusion"], snapshot_id=snapshot_id)}
    found["repository"] = _key("repository", asked["repository"], denoiser=found["diffusion"])
    if "backbone" in asked:
        found["backbone"] = _key("backbone", asked["backbone"], repository=found["repository"])
    if "fused" in asked and not config.weights and (config.teach or not config.backbone):
        found["fused"] = _key("fused", asked["fused"], snapshot_id=snapshot_id, repository=found["repository"],
                              backbone=found.get("backbone", ""), weights="")
    return found


def keys_of(config: TrainDistilled, asked: dict[str, Config]) -> dict[str, str]:
    """`keys` on the dataset that the config names. Raises NotFoundError."""
    snapshot_id = rundir.snapshot_id(rundir.find_snapshot(config.dataset))
    return keys(config, asked, snapshot_id)


def denoiser(asked: TrainDiffusion, snapshot_id: str) -> Path | None:
    """The diffusion model that these settings lead to, where a run has kept it. No choice is left to the preset."""
    return rundir.find_artifact("denoiser", key=_key("diffusion", asked, snapshot_id=snapshot_id))


def _key(stage: str, config: Config, **made_of: str) -> str:
    settings = {k: v for k, v in config.to_json().items() if k not in NAMES and (k, v) not in LATER}
    return rundir.key_of(kind=KINDS[stage], format=FORMATS[stage], **made_of, **settings)


def _kept() -> Iterator[tuple[str, str]]:
    """Kind and key of every artifact of these kinds, of runs in any state."""
    for run_dir in rundir.find(*MAKERS):
        for kind in KINDS.values():
            head = run_dir / kind / "head.json"
            if head.exists():
                yield kind, _key_in(head, head.stat().st_mtime_ns)


@lru_cache(maxsize=1000)
def _key_in(head: Path, written_ns: int) -> str:
    """A repository's head lists all its pictures: read once."""
    return str(rundir.read_json(head)["key"])
