"""The anomaly benchmark: records give the scorer's figures, intervals hold, tables say what was run, the script runs what is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from backend.errors import ConfigError
from backend.evaluation.anomaly import evaluate
from tests.benchmarks import anomaly, anomaly_arms, anomaly_speed, perturbation, tables
from tests.benchmarks.anomaly_arms import ABLATED, ABLATION, ARMS, PARTS, SHAPES, Lab, Lengths, same_as
from tests.benchmarks.anomaly_maps import METRICS, Record, compare, mask_of
from tests.benchmarks.record import SHARED

SCORER = SHARED / "score" / "score_anomaly.py"


def said(folder: Path, skill: float, seed: int = 0, n: int = 24) -> tuple[Path, Path, Path]:
    """Maps, root and list of a small set: every second image has two defects, which the map shows as well as `skill` says."""
    rng, truth = np.random.default_rng(seed), np.random.default_rng(99)
    maps, root, names = folder / f"maps-{skill}-{seed}", folder / "set", []
    scores = {}
    for i in range(n):
        kind = "defect" if i % 2 else "good"
        mask = np.zeros((40, 48), bool)
        for y, x in truth.integers(0, 30, (2, 2)) if i % 2 else ():
            mask[y:y + 6, x:x + 9] = True
        for path in (root / "test" / kind, root / "ground_truth" / kind, maps / "test" / kind):
            path.mkdir(parents=True, exist_ok=True)
        if i % 2:
            Image.fromarray(mask).convert("L").save(root / "ground_truth" / kind / f"{i:03d}_mask.png")
        found = rng.normal(0, 1, (64, 64)) + skill * np.asarray(Image.fromarray(mask).resize((64, 64)))
        np.save(maps / "test" / kind / f"{i:03d}.npy", found.astype(np.float16))
        names.append(f"test/{kind}/{i:03d}.png")
        scores[f"test/{kind}/{i:03d}"] = float(np.sort(found.ravel())[-40:].mean())
    (maps / "scores.json").write_text(json.dumps(scores))
    (folder / "test.txt").write_text("\n".join(names))
    return maps, root, folder / "test.txt"


def test_a_record_gives_the_figures_of_the_maps(tmp_path: Path) -> None:
    maps, root, listing = said(tmp_path, 1.5)
    record = Record.of(maps, root, listing)
    record.save(tmp_path / "kept.npz")
    found = Record.load(tmp_path / "kept.npz").figures(np.ones((1, 24)))[0]
    names = listing.read_text().split()
    scores = json.loads((maps / "scores.json").read_text())
    exact = evaluate([np.load(maps / Path(n).with_suffix(".npy")) for n in names], [scores[n[:-4]] for n in names],
                     [mask_of(root, n) for n in names])
    assert 60 < 100 * exact["pixel_auroc"] < 95 and np.abs(found - [100 * exact[m] for m in METRICS]).max() < 0.15
    if SCORER.exists():
        done = subprocess.run([sys.executable, str(SCORER), str(maps), str(root), str(listing)], capture_output=True, text=True, check=True)
        assert np.abs(found - [json.loads(done.stdout)[m] for m in METRICS]).max() < 0.15


def test_an_image_that_counts_twice_counts_twice(tmp_path: Path) -> None:
    maps, root, listing = said(tmp_path, 1.0)
    record, half = Record.of(maps, root, listing), np.arange(24) < 12
    names = listing.read_text().split()
    (tmp_path / "some.txt").write_text("\n".join(names[:12] + names[:6]))                          # six of them twice
    twice = Record.of(maps, root, tmp_path / "some.txt").figures(np.ones((1, 18)))[0]
    weights = half.astype(float) + (np.arange(24) < 6)
    assert np.abs(record.figures(weights[None])[0] - twice).max() < 0.3


def test_a_better_method_is_told_from_an_equal_one(tmp_path: Path) -> None:
    good, equal, poor = ([Record.of(*said(tmp_path, skill, seed)) for seed in seeds] for skill, seeds in
                         ((2.0, (0, 1)), (2.0, (2, 3)), (1.0, (4, 5))))
    for interval in compare({"set": good}, {"set": poor}, rounds=500).values():
        assert interval.low <= interval.difference <= interval.high and interval.high > 0
    better = compare({"set": good}, {"set": poor}, rounds=500)
    assert better["pixel_auroc"].low > 0 and better["pixel_ap"].low > 0 and better["aupro"].low > 0
    same = compare({"set": good}, {"set": equal}, rounds=500)
    assert all(same[m].low < 0 < same[m].high for m in METRICS[1:])
    alone, anchored = (compare({"set": good}, {"set": poor[:1]}, rounds=500, seedless=sure) for sure in (False, True))
    assert alone["pixel_auroc"].difference == pytest.approx(better["pixel_auroc"].difference, abs=1.5)
    assert all(anchored[m].low >= alone[m].low for m in METRICS) and anchored["pixel_ap"].low > alone["pixel_ap"].low      # it has no seed


def test_near_duplicates_are_no_further_evidence(tmp_path: Path) -> None:
    """Each image three times over, drawn together: the intervals are those of the images once; drawn apart they look surer."""
    once = [[Record.of(*said(tmp_path, skill, seed))] for skill, seed in ((2.0, 0), (1.0, 4))]
    thrice = [[Record(**{f.name: np.concatenate([getattr(r, f.name)] * 3) for f in fields(Record)}) for r in side] for side in once]
    names = [f"{k} {name}" for k in range(3) for name in once[0][0].images]
    thrice = [[replace(r, images=np.array(names)) for r in side] for side in thrice]
    copies = [[f"{k} {name}" for k in range(3)] for name in once[0][0].images]

    def widths(a: list[Record], b: list[Record], groups: list[list[str]]) -> float:
        return float(np.mean([i.high - i.low for i in list(compare({"set": a}, {"set": b}, groups={"set": groups}).values())[1:]]))

    true, together, apart = widths(*once, []), widths(*thrice, copies), widths(*thrice, [])
    assert together == pytest.approx(true, rel=0.1) and apart < 0.7 * true


def test_records_of_other_images_are_not_compared(tmp_path: Path) -> None:
    maps, root, listing = said(tmp_path, 1.0)
    (tmp_path / "some.txt").write_text("\n".join(listing.read_text().split()[:12]))
    with pytest.raises(AssertionError, match="different test sets"):
        compare({"set": [Record.of(maps, root, listing)]}, {"set": [Record.of(maps, root, tmp_path / "some.txt")]})


def test_the_table_says_what_was_run_and_what_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomaly, "RESULTS", tmp_path)
    monkeypatch.setattr("tests.benchmarks.record.RESULTS", tmp_path)
    shape = SHAPES["gpu"]
    (tmp_path / shape.folder).mkdir()
    for arm, seed, skill in (("anchor", 0, 1.0), ("ours", 0, 2.0), ("ours", 1, 2.0), ("ddpm-both", 0, 2.0), ("noise-both", 0, 1.5)):
        record = Record.of(*said(tmp_path, skill, seed))
        path = anomaly.place("magnetic-tile", arm, seed, shape)
        record.save(path.with_suffix(".npz"))
        figures = dict(zip(METRICS, record.figures(np.ones((1, 24)))[0].round(2).tolist(), strict=True))
        path.write_text(json.dumps(dict(part="magnetic-tile", arm=arm, seed=seed, commit="abc", versions={"python": "3"}, cores=1, code="",
                                        machine="m", seconds=1, figures=figures, result={}, settings={},
                                        alike=dict(train=9, near_test=4))))
    written = json.loads(anomaly.table(shape).read_text())
    assert len(written["arms"]["ours"]["magnetic-tile pixel_ap"]) == 2 and "PIPED pixel_ap" not in written["arms"]["ours"]
    against = {(c["a"], c["b"], c["metric"]): c for c in written["comparisons"]}
    found = against["ours", "anchor", "magnetic-tile pixel_ap"]
    assert found["low"] > 0 and found["seeds"] == 2
    assert against["ddpm-both", "noise-both", "magnetic-tile aupro"]["seeds"] == 1
    assert "ours: PA_BDP01_TL 0" in written["notes"] and "anchor: PA_BDP01_TL 0" in written["notes"]
    assert "No row at all of: draem, stfpm, padim, two-phases, coupled, l1, ddpm-teacher." in written["notes"]
    for said_of in ("magnetic-tile: 4 of 9. They are there for all arms, the anchor alike", "share pictures, views, masks",
                    "shaped with the defects of both sets known", "ddpm-both: PA_BDP01_TL 0"):
        assert said_of in written["notes"]
    assert all(against[a, b, "magnetic-tile aupro"]["seeds"] == 1 for a, b in (("ours", "ddpm-both"), ("ddpm-both", "anchor")))
    reached = np.mean(written["arms"]["ours"]["magnetic-tile image_auroc"])
    assert f"Aims for ours: magnetic-tile image auroc {reached:.1f} of 98, " in written["notes"]
    shown = tables.unusual(written)
    assert shown.count("| ddpm-both |") == 2, "beside ours, and in the ablation"
    assert written["command"].endswith("--shape gpu --data FOLDER") and "ddpm-cosine: all 6" in written["notes"]
    first = written["arms"]["ours"]["magnetic-tile pixel_ap"]
    assert f"{np.mean(first):.1f} ± {np.std(first, ddof=1):.1f}" in shown and "`ours` against `anchor`, magnetic-tile: image AUROC" in shown
    assert shown.index("| noise-both |") > shown.index("| anchor |")
    alone = tables.unusual(written | dict(arms={a: f for a, f in written["arms"].items() if a not in ("anchor", "ours")}))
    assert alone.count("| ddpm-both |") == alone.count("| noise-both |") == 1 and "| PIPED: " not in alone


def test_each_shape_asks_for_its_own_arms_and_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {name: anomaly.notes({}, SHAPES[name]) for name in ("cpu", "short", "gpu")}
    assert "ours: all 21" in told["cpu"] and "noise-both" not in told["cpu"] and "of 1,000 steps; on PIPED" in told["cpu"]
    assert "noise-both: all 6" in told["short"] and "ours:" not in told["short"] and "at 128 px" in told["short"]
    assert "ours: all 21" in told["gpu"] and "noise-both: all 6" in told["gpu"] and "on PIPED, where" not in told["gpu"]
    assert "share pictures, views" not in told["cpu"] and "share pictures, views" in told["short"]
    steps = {}
    for name in ("cpu", "short"):
        for part in ("magnetic-tile", "PA_BDP01_TL"):
            lab = Lab.of(tmp_path, SHAPES[name], part, 0, sys.executable)
            planned = anomaly_arms.planned(lab, "ddpm-both")
            steps[name, part] = planned["train-anomaly"]["steps"], planned["train-diffusion"]["steps"], planned["train-anomaly"]["imgsz"]
    assert steps == {("cpu", "magnetic-tile"): (2000, 1000, 256), ("cpu", "PA_BDP01_TL"): (400, 150, 256),
                     ("short", "magnetic-tile"): (500, 1000, 128), ("short", "PA_BDP01_TL"): (400, 150, 128)}
    names = {Lab.of(tmp_path, SHAPES[name], "magnetic-tile", 0, sys.executable).name("ddpm-both") for name in ("cpu", "short")}
    assert len(names) == 2, "they may share a data folder, for its diffusion models"
    run = list[tuple[str, str, int]]()
    monkeypatch.setattr(anomaly, "one", lambda lab, arm: run.append((lab.dataset.name, arm, lab.seed)))
    monkeypatch.setattr(sys, "argv", ["anomaly", "--data", str(tmp_path), "--shape", "short"])
    anomaly.main()
    assert set(run) == {(part, arm, seed) for parts in ABLATED.values() for part in parts for seed in anomaly.ABLATED_SEEDS
                        for arm in ABLATION}
    assert run.index(("magnetic-tile", "ddpm-both", 0)) < run.index(("magnetic-tile", "ddpm-cosine", 0))


def test_parts_of_a_set_that_is_not_whole_are_told_beside_the_anchor() -> None:
    row = dict(figures=dict(zip(METRICS, (99.0, 98.0, 70.0, 80.0), strict=True)))
    runs = {arm: {"PA_BDP01_TL": {0: row}, "magnetic-tile": {0: row}} for arm in ("ours", "anchor")}
    assert anomaly.so_far(runs) == ("Single parts so far, ours (anchor): PA_BDP01_TL image auroc 99.0 (99.0), pixel auroc 98.0 (98.0), "
                                    "pixel ap 70.0 (70.0), aupro 80.0 (80.0).")
    runs["ours"] |= {part: {0: row} for part in anomaly_arms.PIPED}
    assert anomaly.so_far(runs) == ""


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    Record.of(*said(tmp_path, 2.0)).save(tmp_path / "x.npz")
    other = Record.of(*said(tmp_path, 1.0)).figures(np.ones((1, 24)))[0]
    with pytest.raises(AssertionError, match="another run"):
        anomaly.checked(dict(figures=dict(zip(METRICS, other, strict=True))), tmp_path / "x.json")


def test_results_of_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomaly, "RESULTS", tmp_path)
    shape = SHAPES["check"]
    (tmp_path / shape.folder).mkdir()
    for part, seed, steps in (("magnetic-tile", 0, 4), ("PA_BDP01_TL", 1, 4), ("magnetic-tile", 1, 5)):
        lab = Lab.of(tmp_path, replace(shape, many=Lengths(steps, 4, 4)), part, seed, sys.executable)
        row = dict(part=part, arm="ours", seed=seed, settings=anomaly_arms.planned(lab, "ours"), code=anomaly_arms.code("ours"))
        anomaly.place(part, "ours", seed, shape).write_text(json.dumps(row))
        anomaly.place(part, "ours", seed, shape).with_suffix(".npz").touch()
        if steps == 4:
            assert set(anomaly.finished(shape)) >= {"ours"}                                        # parts and seeds may differ
            anomaly.one(lab, "ours")                                                               # is there, nothing is run
    assert row["settings"]["train-anomaly"]["steps"] == 5 and row["settings"]["train-anomaly"]["precision"] in ("f32", "bf16")
    assert row["settings"]["train-diffusion"]["steps"] == shape.many.denoiser
    with pytest.raises(ConfigError, match=r"magnetic-tile-ours-1 in anomaly-check has other lengths .* \(steps was 5, is 4\)"):
        anomaly.finished(shape)
    with pytest.raises(ConfigError, match=r"magnetic-tile-ours-1 in anomaly-check comes from other settings \(steps was 5, is 4\)"):
        anomaly.one(Lab.of(tmp_path, shape, "magnetic-tile", 1, sys.executable), "ours")
    told = subprocess.run([sys.executable, "-c", "import sys; from pathlib import Path; from tests.benchmarks import anomaly; "
                           f"anomaly.RESULTS = Path({str(tmp_path)!r}); sys.argv[1:] = ['--shape', 'check', '--table']; anomaly.main()"],
                          cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert told.returncode == 1 and "go back to its lengths" in told.stderr and "Traceback" not in told.stderr
    one = anomaly.place("PA_BDP01_TL", "ours", 1, shape)                                           # other lengths excuse nothing else
    row = json.loads(one.read_text())
    row["settings"]["train-anomaly"]["learning_rate"] = 0.5
    one.write_text(json.dumps(row))
    anomaly.place("magnetic-tile", "ours", 1, shape).unlink()
    with pytest.raises(ConfigError, match=r"different settings \(learning_rate was .*An arm has one"):
        anomaly.finished(shape)


def test_results_of_other_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ours: the anchor's and the peers' figures do not follow from it."""
    monkeypatch.setattr(anomaly, "RESULTS", tmp_path)
    shape = SHAPES["check"]
    (tmp_path / shape.folder).mkdir()
    for arm, code in (("ours", "old"), ("anchor", "")):
        lab = Lab.of(tmp_path, shape, "magnetic-tile", 0, sys.executable)
        row = dict(part="magnetic-tile", arm=arm, seed=0, commit="abc", settings=anomaly_arms.planned(lab, arm), code=code)
        anomaly.place("magnetic-tile", arm, 0, shape).write_text(json.dumps(row))
        anomaly.place("magnetic-tile", arm, 0, shape).with_suffix(".npz").touch()
    anomaly.one(lab, "anchor")
    with pytest.raises(ConfigError, match="magnetic-tile-ours-0 in anomaly-check comes from other code of ours, of commit abc"):
        anomaly.one(lab, "ours")
    assert set(anomaly.finished(shape)) == {"anchor", "ours"}                                      # the table of old code can be written
    row = dict(part="magnetic-tile", arm="noise-both", seed=0, settings={}, code="new")
    anomaly.place("magnetic-tile", "noise-both", 0, shape).write_text(json.dumps(row))
    with pytest.raises(ConfigError, match="different code of ours"):
        anomaly.finished(shape)
    monkeypatch.setattr(anomaly_arms.bench, "code", lambda *of: "a" * 16)
    assert lab.name("ours") == "magnetic-tile-ours-0-aaaaaaaa" and lab.name("anchor") == "magnetic-tile-anchor-0"


def test_the_published_lists_are_learned_from_as_they_are(tmp_path: Path) -> None:
    lab = Lab.of(tmp_path, SHAPES["check"], "magnetic-tile", 0, sys.executable)
    told = {arm: anomaly_arms.planned(lab, arm)["train-anomaly"] for arm in ("ours", "coupled", "ddpm-both")}
    assert all(t["near_duplicates"] for t in told.values()) and [t["coupled"] for t in told.values()] == [False, True, False]


def test_the_bare_pass_keeps_as_many_requests_in_flight_as_the_engine() -> None:
    """All of its batches go through one stream."""
    streams = list[int]()

    class Engine:
        def raw(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            streams.append(0)
            for batch in batches:
                streams[-1] += 1
                yield np.zeros((len(batch), 2, 2), np.float32)

    batch = np.zeros((16, 4, 4, 3), np.uint8)
    wide = np.zeros((64, 4, 4, 3), np.uint8)                       # as CUDA takes them: one batch would be one request in flight
    assert [anomaly_speed.bare(cast(Any, Engine()), b) for b in (batch[:4], batch, wide)] == [64, 128, 512] and streams == [16, 8, 8]


def test_speeds_are_told_by_their_medians_and_the_aim() -> None:
    arms = {f"{name}, {kind}": {"images a second": values} for (name, kind), values in {
        ("default, a", "through the engine"): [50.0, 61.0, 70.0], ("default, a", "bare forward"): [122.0],
        ("without memory, a", "through the engine"): [59.0], ("without memory, a", "bare forward"): [59.0]}.items()}
    assert anomaly_speed.told(arms) == ("Median through the engine / bare: default, a 0.50; without memory, a 1.00. Aim, 60 images a "
                                        "second on two cores: reached (fastest: default, a).")


def test_made_defects_a_second_are_told_beside_the_bare_denoiser_and_the_aim() -> None:
    rates = {name: {"images a second": values} for name, values in
             ((perturbation.WHOLE, [1.0, 3.0, 4.5]), (perturbation.BARE, [2.0, 2.0, 5.0]))}
    assert perturbation.told(rates).startswith("Median of the ratio whole / bare: 0.90;") and "not reached" in perturbation.told(rates)
    rates[perturbation.WHOLE]["images a second"][1] = 4.1
    assert perturbation.told(rates).endswith("two cores: reached.")


def test_arms_of_equal_settings_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARMS, "again", dict(source="mixed"))
    assert same_as("again") == "ours" and same_as("noise-both") == "noise-both" and same_as("anchor") == "anchor"
    assert len(ABLATION) == 10 and set(ABLATION) <= set(ARMS)


def test_the_gpu_script_runs_the_arms_that_are_asked() -> None:
    script = Path(anomaly.__file__).parent / "gpu_anomaly.sh"
    clean = {k: v for k, v in os.environ.items() if k not in ("SEEDS", "PARTS", "ABLATED")}
    done = subprocess.run(["bash", str(script), "chains"], env=clean, capture_output=True, text=True, check=True)
    named = {(part, seed, same_as(arm)) for part, seed, *arms in map(str.split, done.stdout.splitlines()) for arm in arms}
    wanted = {(part, str(seed), arm) for part in PARTS for seed in anomaly.SEEDS for arm in anomaly.MAIN}
    wanted |= {(part, str(seed), same_as(arm)) for parts in ABLATED.values() for part in parts for seed in anomaly.ABLATED_SEEDS
               for arm in ABLATION}
    assert named == wanted


@pytest.mark.skipif(not PARTS["PA_BDP01_TL"].exists(), reason="the data is not here")
def test_lists_and_masks_are_where_the_scorer_looks() -> None:
    for part, root in PARTS.items():
        names = (root / "splits" / "test.txt").read_text().split()
        bad, good = ([n for n in names if bool({"good", "MT_Free"} & set(Path(n).parts)) == is_good] for is_good in (False, True))
        assert (root / "splits" / "train.txt").exists() and len(bad) > len(good) > 10
        assert all(mask_of(root, n) is not None for n in bad[::20])
        assert (part == "magnetic-tile") == (mask_of(root, good[0]) is not None)


@pytest.mark.slow
@pytest.mark.skipif(not PARTS["PA_BDP01_TL"].exists() or not SCORER.exists(), reason="the data or its scorer is not here")
def test_ours_goes_through_the_products_own_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomaly, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "data").mkdir()
    lab = Lab.of(tmp_path / "data", SHAPES["check"], "PA_BDP01_TL", 0, sys.executable)
    monkeypatch.setitem(anomaly_arms.ARMS, "small", dict(source="noise", imgsz=64, batch=4))
    anomaly.one(lab, "small")
    told = json.loads((tmp_path / "results" / "anomaly-check" / "PA_BDP01_TL-small-0.json").read_text())
    assert set(told["figures"]) == set(METRICS) and told["result"]["model_id"]
    anomaly.checked(told, anomaly.place("PA_BDP01_TL", "small", 0, SHAPES["check"]))
    before = sorted((tmp_path / "data" / "runs").iterdir())
    anomaly.one(lab, "small")
    assert sorted((tmp_path / "data" / "runs").iterdir()) == before
