"""From a dataset and judged synthetic sets to a new dataset: what goes in, what may not, and that val and test stay as they are."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import rundir
from backend.config import Combine, Import, Relabel
from backend.data import combine, images, importer, labelling, leaks, relabel, snapshot
from backend.data.marks import Box
from backend.errors import ConfigError, NotFoundError
from backend.synthesis import masks
from tests import plates

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[snapshot.Snapshot]:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    yield snapshot.read(plates.imported(tmp_path / "in", "plates"))


def made_set(data: snapshot.Snapshot, items: list[dict[str, Any]], name: str = "set", **more: Any) -> Path:
    """A set as `synthesize` leaves it, of drawn pictures; what an item does not say is ordinary."""
    run = rundir.create("synthesize", {}, state="completed")
    folder, parent = run / ".synthetic", data.by_split("train")[0].image_id
    folder.mkdir()
    found, rng = [], np.random.default_rng(len(list(rundir.find("synthesize"))))
    for i, item in enumerate(items):
        one = dict(file=f"{i:06d}.png", mask=f"{i:06d}_mask.png", width=60, height=44, boxes=[["bright", 5.0, 6.0, 15.0, 16.0]],
                   boxes_from="mask", exact=True, class_name="bright", parent=parent, donor="", method="paste", source="paste") | item
        pixels = one.pop("pixels", rng.integers(0, 255, (44, 60)).astype(np.uint8))
        if pixels is not None:
            Image.fromarray(pixels).save(folder / one["file"])
        white = np.zeros((44, 60), bool)
        white[6:16, 5:15] = True
        if one["mask"]:
            masks.write(folder / one["mask"], white)
        found.append(one)
    rundir.keep_artifact(folder, run, "synthetic", dict(key=run.name, name=name, dataset="plates", method="paste", classes=["bright"],
                                                        **(dict(snapshot_id=data.snapshot_id) | more), items=found))
    return run


def judged(run: Path, **said: str) -> None:
    """`_0="accept"` is said of the first picture."""
    given = {f"{int(k[1:]):06d}.png": v for k, v in said.items()}
    rundir.create("judge", dict(run_id=run.name, verdicts=given), state="completed")


def combined(sets: str = "set", which: str = "all", **more: Any) -> snapshot.Snapshot:
    run = plates.run_of("combine", lambda run: combine.run(
        Combine(**{"dataset": "plates", "name": "more", "sets": sets, "which": which, **more}), run, plates.silent))
    return snapshot.read(run)


def made(data: snapshot.Snapshot) -> list[snapshot.Picture]:
    return sorted((p for p in data.pictures if p.origin == "synthetic"), key=lambda p: p.file_name)


def test_accepted_pictures_join_train_and_the_rest_stays(data: snapshot.Snapshot) -> None:
    run = made_set(data, [{}, {}, {}, {}])
    judged(run, _0="accept", _1="reject", _2="accept")
    judged(run, _2="again")
    judged(run, _3="accept")
    more = combined(which="accepted")
    rest = [p for p in more.pictures if p.origin == "real"]
    assert sorted(rest, key=lambda p: p.file_name) == sorted(data.pictures, key=lambda p: p.file_name), "the dataset's own are unchanged"
    assert [p.file_name[-10:] for p in made(more)] == ["000000.png", "000003.png"]
    for p in made(more):
        assert (p.split, p.parent, p.generator_run) == ("train", data.by_split("train")[0].image_id, run.name)
        (box,), white = p.boxes, images.load_mask(p.mask)
        assert (box.class_name, box.x1, box.y1, box.x2, box.y2, box.source) == ("bright", 5, 6, 15, 16, "mask") and white.sum() == 100
        assert p.path.read_bytes() == (run / "synthetic" / p.file_name[-10:]).read_bytes()
    assert more.head["images"] == {"train": plates.COUNTS["train"] + 2, "val": plates.COUNTS["val"], "test": plates.COUNTS["test"]}
    assert more.head["name"] == "more" and more.head["combined_from"] == data.snapshot_id and more.head["synthetic"] == 2
    assert set(rundir.rows(rundir.find_snapshot("more"), "snapshot_images").column("generator_run").to_pylist()) == {"", run.name}
    leaks.refuse(more.pictures)


def test_all_is_what_nobody_put_aside(data: snapshot.Snapshot) -> None:
    judged(made_set(data, [{}] * 5), _0="reject", _1="again", _2="accept")
    assert [p.file_name[-5] for p in made(combined())] == ["2", "3", "4"]
    judged(made_set(data, [{}], "none"), _0="reject")
    with pytest.raises(ConfigError, match="Every picture of 'none' was put aside"):
        combined("set, none")


def test_nothing_of_val_or_test_comes_back_in(data: snapshot.Snapshot) -> None:
    val, test = data.by_split("val")[0], data.by_split("test")[0]
    near = np.clip(np.asarray(images.load(test.image_id)).astype(int) + 1, 0, 255).astype(np.uint8)
    twin = data.by_split("train")[1]
    held = next(p for p in data.pictures if p.image_id == twin.image_id)
    made_set(data, [{}, dict(parent=test.image_id), dict(donor=val.image_id), dict(pixels=near),
                    dict(pixels=np.asarray(images.load(held.image_id))), dict(pixels=None)])
    more = combined()
    assert [p.file_name[-5] for p in made(more)] == ["0", "4"]
    told = {r["file_name"][-5]: r["reason"] for r in rundir.rows(rundir.find_snapshot("more"), "refused").to_pylist()}
    assert told == {"1": combine.LEAK, "2": combine.LEAK, "3": combine.NEAR, "5": "Its file is missing from the set."}
    assert any(n.startswith("Pictures left out, 2:") for n in more.head["notes"])
    assert made(more)[1].group_id == held.group_id, "what nearly equals a train picture is of its group"


def test_a_twin_of_a_held_picture_is_no_parent(data: snapshot.Snapshot, tmp_path: Path) -> None:
    """Lists may have put near-duplicates into train and test: what is made of the one tells of the other."""
    folder = tmp_path / "twins"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = np.asarray(Image.fromarray(rng.integers(0, 255, (6, 8)).astype(np.uint8)).resize((60, 44)))
        for k in range(2):
            Image.fromarray(np.clip(pixels.astype(int) + k, 0, 255).astype(np.uint8)).save(folder / f"{i}{k}.png")
    for split, names in dict(train="00 10 20 21", val="30", test="31 01").items():
        (folder / f"{split}.txt").write_text("\n".join(names.split()))
    twins = snapshot.read(plates.run_of("import", lambda run: importer.run(
        Import(path=str(folder), name="twins", splits=str(folder)), run, plates.silent)))
    known = {p.file_name: p.image_id for p in twins.pictures}
    made_set(twins, [dict(parent=known["00.png"]), dict(parent=known["20.png"])])
    assert [p.parent for p in made(combined(dataset="twins"))] == [known["20.png"]]


def test_a_picture_comes_once(data: snapshot.Snapshot) -> None:
    pixels = np.random.default_rng(9).integers(0, 255, (44, 60)).astype(np.uint8)
    made_set(data, [dict(pixels=pixels), {}], "one")
    made_set(data, [dict(pixels=pixels)], "two")
    more = combined("one,two")
    assert [p.file_name.split("/")[0] for p in made(more)] == ["one", "one"]
    assert [s["images"] for s in more.head["sets"]] == [2, 0]


def test_boxes_say_what_they_are_from(data: snapshot.Snapshot) -> None:
    parent = next(p for p in data.by_split("train") if p.boxes)
    b = parent.boxes[0]
    made_set(data, [
        dict(mask="", boxes_from="whole", boxes=[["bright", 0, 0, 60, 44]], parent=""), dict(exact=False),
        dict(mask="", boxes_from="parent", parent=parent.image_id, boxes=[["bright", b.x1, b.y1, b.x2, b.y2]]),
        dict(boxes=[["crack", 5, 6, 15, 16]], class_name="crack")])
    more = combined()
    assert [(p.boxes[0].source, bool(p.mask)) for p in made(more)] == [("image", False), ("box", False), ("box", False), ("mask", True)]
    assert more.classes == ["bright", "crack"] and more.head["counts"]["train"]["crack"] == 1
    assert any("Classes that only synthetic pictures show: crack." in n for n in more.head["notes"])


def test_a_picture_of_a_defect_that_is_nowhere_is_none_of_the_good_ones(data: snapshot.Snapshot) -> None:
    made_set(data, [{}, dict(boxes=[], mask="", boxes_from="parent")])
    assert [p.file_name[-5] for p in made(combined())] == ["0"]


def test_a_killed_run_goes_on_with_what_it_had_chosen(data: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store may have taken in a part already: what comes after must belong to it, though people have judged on."""
    made_run = made_set(data, [{}, {}, {}])
    judged(made_run, _0="accept", _1="accept")
    run, config = rundir.create("combine", {}), Combine(dataset="plates", name="more", sets="set")

    def killed(path: Path, value: Any) -> None:
        if path.name == "snapshot.json":
            raise KeyboardInterrupt
        real(path, value)

    real = rundir.write_json
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rundir, "write_json", killed)
        combine.run(config, run, plates.silent)
    before = {p.name: rundir.read_part(p).to_pylist() for p in rundir.parts(run, "snapshot_images")}
    judged(made_run, _0="reject", _2="accept")
    plates.imported(run.parent / "more_plates", "plates", seed=1)                   # the dataset's name has moved on too
    first = combine.run(config, run, plates.silent)
    assert {p.name: rundir.read_part(p).to_pylist() for p in rundir.parts(run, "snapshot_images")} == before != {}
    assert first["synthetic"] == 2 and first["combined_from"] == data.snapshot_id
    judged(made_run, _1="reject")
    assert combine.run(config, run, plates.silent) == first, "killed after its end, it only says the result"


def test_a_limit_is_drawn_by_the_seed(data: snapshot.Snapshot) -> None:
    made_set(data, [{} for _ in range(12)])
    some = [{p.image_id for p in made(combined(limit=5, seed=seed))} for seed in (0, 0, 1)]
    assert [len(s) for s in some] == [5] * 3 and some[0] == some[1] != some[2]
    assert combined(limit=50).snapshot_id == combined().snapshot_id


def test_a_set_of_another_snapshot_is_used_only_where_nothing_can_leak(data: snapshot.Snapshot, tmp_path: Path) -> None:
    """The same pictures again, other splits: train here was test there, and the other way round."""
    train, test = data.by_split("train"), data.by_split("test")
    moved = [test[0].file_name, *(p.file_name for p in train[1:])]
    kept = [p.file_name for p in train[:-1]]
    for name, chosen in (("moved", moved), ("fewer", kept)):
        (lists := tmp_path / name).mkdir()
        (lists / "train.txt").write_text("\n".join(chosen))
        (lists / "test.txt").write_text("\n".join(p.file_name for p in data.pictures if p.file_name not in chosen and p.split != "val"))
        (lists / "val.txt").write_text("\n".join(p.file_name for p in data.by_split("val")))
        config = Import(path=str(tmp_path / "in"), name=name, splits=str(lists))
        plates.run_of("import", lambda run: importer.run(config, run, plates.silent))  # noqa: B023
    other, fewer = (snapshot.read(rundir.find_snapshot(n)) for n in ("moved", "fewer"))
    made_set(data, [dict(parent=train[1].image_id)], "learned", snapshot_id=other.snapshot_id)
    with pytest.raises(ConfigError, match="may have learned from 1 of the val and test images of 'plates'"):
        combined("learned")
    made_set(data, [dict(parent=test[0].image_id)], "strange", snapshot_id=other.snapshot_id)
    with pytest.raises(ConfigError, match="1 of the pictures it was made of are no train images of 'plates'"):
        combined("strange")
    made_set(data, [{}], "gone", snapshot_id="0" * 16)
    with pytest.raises(ConfigError, match="a dataset that is gone"):
        combined("gone")
    made_set(data, [{}], "fine", snapshot_id=fewer.snapshot_id)
    assert len(made(combined("fine"))) == 1, "all that it may have learned from is train here too"


def test_what_was_made_of_a_picture_that_was_corrected_since_is_left_out(data: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, right = data.by_split("train")[:2]
    made_set(data, [dict(parent=wrong.image_id), dict(parent=right.image_id), dict(parent=right.image_id, donor=wrong.image_id)])
    word = labelling.Labelled(wrong.image_id, wrong.file_name, wrong.width, wrong.height, (Box("dull", 1.0, 2.0, 20.0, 30.0, "person"),),
                              "", "", "")
    monkeypatch.setattr(relabel, "labelled", lambda *_: {wrong.image_id: word})
    plates.run_of("relabel", lambda run: relabel.run(Relabel(dataset="plates", name="plates 2"), run, plates.silent))
    assert [p.parent for p in made(combined(dataset="plates 2"))] == [right.image_id]
    assert rundir.rows(next(rundir.find("combine")), "refused")["reason"].to_pylist() == [combine.CORRECTED] * 2
    assert len(made(combined())) == 3, "in the dataset that they are of they stay"


def test_what_the_prior_of_a_stranger_learned_counts_too(data: snapshot.Snapshot, tmp_path: Path) -> None:
    """The set's own dataset shares nothing with val and test here; its prior, or a near copy in that dataset, may."""
    other = snapshot.read(plates.imported(tmp_path / "other", "other", seed=5))
    test, parent = data.by_split("test")[0], dict(parent="")
    run = rundir.create("train-prior", {}, state="completed")
    (run / ".prior").mkdir()
    rundir.keep_artifact(run / ".prior", run, "prior", dict(key="p", name="surface", learned=[test.image_id]))
    about = dict(snapshot_id=other.snapshot_id)
    made_set(data, [parent], "plain", **about)
    assert len(made(combined("plain"))) == 1
    made_set(data, [parent], "drawn", prior=dict(name="surface", adapter="", base="b"), **about)
    with pytest.raises(ConfigError, match="may have learned from 1 of the val and test"):
        combined("drawn")
    near = np.clip(np.asarray(images.load(test.image_id)).astype(int) + 1, 0, 255).astype(np.uint8)
    Image.fromarray(near).save(tmp_path / "other" / "images" / "train" / "0.png")
    again = plates.run_of("import", lambda run: importer.run(Import(path=str(tmp_path / "other"), name="again"), run, plates.silent))
    made_set(data, [parent], "near", **about | dict(snapshot_id=snapshot.read(again).snapshot_id))
    with pytest.raises(ConfigError, match="or from near copies"):
        combined("near")


def test_the_prior_that_drew_a_set_is_known_by_its_key(data: snapshot.Snapshot, tmp_path: Path) -> None:
    """Priors have names in common, and the newest of a name is seldom the one; some are folders, which an adapter may stand on."""
    other = snapshot.read(plates.imported(tmp_path / "other", "other", seed=5))
    test = data.by_split("test")[0].image_id

    def kept(kind: str, key: str, **more: Any) -> None:
        run = rundir.create(f"{'train' if kind == 'prior' else 'adapt'}-prior", {}, state="completed")
        (run / ".made").mkdir()
        rundir.keep_artifact(run / ".made", run, kind, dict(key=key, name="surface prior", **more))

    def drawn(name: str, **about: str) -> None:
        said = dict(name="surface prior", adapter="", base="b") | about
        made_set(data, [dict(parent="")], name, snapshot_id=other.snapshot_id, prior=said)

    rundir.write_json(tmp_path / "head.json", dict(native=True, learned=[test]))
    kept("prior", "a", learned=[test])
    kept("prior", "b", learned=[])
    kept("adapter", "c", learned=[], base=dict(where=str(tmp_path)))
    drawn("first", key="a")
    drawn("second", key="b")
    drawn("folder", key=str(tmp_path))
    drawn("adapted", key="c", adapter="c")
    assert len(made(combined("second"))) == 1
    for name in ("first", "folder", "adapted"):
        with pytest.raises(ConfigError, match="may have learned from 1 of the val and test"):
            combined(name)


def test_what_cannot_be_is_said(data: snapshot.Snapshot) -> None:
    made_set(data, [{}])
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        (dict(name=" "), ConfigError, "name"), (dict(sets=" , "), ConfigError, "at least one"),
        (dict(sets="none such"), NotFoundError, "none such"), (dict(dataset="none such"), NotFoundError, "dataset"),
        (dict(which="accepted"), ConfigError, "Nobody has accepted a picture of 'set'")]
    for settings, kind, word in cases:
        with pytest.raises(kind, match=word):
            combined(**settings)
    made_set(data, [dict(parent=data.by_split("test")[0].image_id)], "leaks")
    with pytest.raises(ConfigError, match=f"None of the 1 chosen pictures can be used.*{combine.LEAK}"):
        combined("leaks")


def test_combining_needs_no_torch() -> None:
    script = "import sys, backend.data.combine; print(sorted({'torch', 'diffusers', 'transformers', 'duckdb'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
