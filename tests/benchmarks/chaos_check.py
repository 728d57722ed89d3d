"""What must hold after each moment of `tests.benchmarks.chaos`, whoever died when. Reads the data folder with nobody else in it.

    promised     whatever a call had returned of is there, once: runs and decisions
    finished     each run is completed, or has failed with a sentence a person can act on; none is open, none is half
    whole        a completed run has all its rows, none twice, and the very answers of an undisturbed one
    rebuild      the live database and one that is made anew hold the same in every table
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.record import ROOT


def problems(data: Path, scene: str, promised: list[dict[str, Any]], states: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Sentences, none where all is well. In a process of its own, since the data folder is in the environment."""
    from tests.benchmarks.chaos_scene import end, environment

    end(data)
    asked = json.dumps(dict(scene=scene, promised=promised, states=states, expected=expected))
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.chaos_check"], cwd=ROOT, env=environment(data), input=asked, text=True,
                          capture_output=True, timeout=600)
    if done.returncode:
        return [f"the check failed: {done.stderr[-500:]}"]
    return list(json.loads(done.stdout.splitlines()[-1])["problems"])


def facts(data: Path) -> dict[str, Any]:
    """What an undisturbed scene came to, to hold others against."""
    from tests.benchmarks.chaos_scene import end, environment

    end(data)
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.chaos_check", "facts"], cwd=ROOT, env=environment(data), text=True,
                          capture_output=True, check=True, timeout=600)
    return dict(json.loads(done.stdout.splitlines()[-1]))


# ---- within that process

def _tables(db: Any) -> dict[str, list[str]]:
    from tests import small_plant

    return small_plant.tables(db)


def _answers(run: Path) -> str:
    """What a batch said of its pictures, whatever their ids, as a digest."""
    from backend import rundir

    names = {r["inspection_id"]: r["file_name"] for r in rundir.rows(run, "inspections").to_pylist()}
    found = sorted((names.get(r["inspection_id"], "?"), r["class_name"], round(r["confidence"], 4), round(r["x1"], 1), round(r["y1"], 1))
                   for r in rundir.rows(run, "detections").to_pylist())
    return hashlib.sha256(json.dumps([sorted(names.values()), found]).encode()).hexdigest()


def _gathered() -> dict[str, Any]:
    from backend import rundir

    own = {}
    for run in rundir.completed():
        recipe = rundir.recipe_of(run.name)
        if recipe == "inspect" and (run / "inspect.json").exists():
            first = min((r["file_name"] for r in rundir.rows(run, "inspections").to_pylist()), default="")
            own[f"inspect {first}"] = _answers(run)
    return dict(answers=own)


def _whole(run: Path, expected: dict[str, Any]) -> list[str]:
    """Of a completed run."""
    from backend import rundir

    recipe, found = rundir.recipe_of(run.name), list[str]()
    if not (run / "result.json").exists():
        return [f"{recipe}: completed without a result"]
    result = rundir.read_json(run / "result.json")
    if recipe == "inspect" and (run / "inspect.json").exists():
        rows = rundir.rows(run, "inspections").to_pylist()
        ids, first = [r["inspection_id"] for r in rows], min((r["file_name"] for r in rows), default="")
        if len(ids) != result["inspected"] or len(set(ids)) != len(ids) or len({r["image_id"] for r in rows}) != len(ids):
            found.append(f"inspect: {len(ids)} rows of {len(set(ids))} inspections, {result['inspected']} said")
        if expected["answers"].get(f"inspect {first}", "") != _answers(run):
            found.append("inspect: other answers than undisturbed")
    if recipe == "train-detector":
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        if not (run / "model" / "model.onnx").exists() or rundir.rows(run, "models").num_rows != 1 or not steps:
            found.append("train-detector: completed without its model or its curves")
    if recipe == "backup":
        found += _backed_up(Path(result["path"]))
    return found


def _backed_up(head: Path) -> list[str]:
    from backend.store import vault

    folder, said = head.parent, json.loads(head.read_bytes())
    bad = [k.path for k in vault.listed(folder, said)
           if hashlib.sha256((folder / "files" / k.digest[:2] / k.digest).read_bytes()).hexdigest() != k.digest]
    return [f"backup: {len(bad)} contents are damaged"] if bad else []


def _check(scene: str, promised: list[dict[str, Any]], states: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    from backend import rundir
    from backend.config import data_root
    from backend.store.database import Database
    from backend.store.ingest import ingest, rebuild

    found = [f"promised and gone: {p.get('run') or p['event']}" for p in promised if ("run" in p or "event" in p)
             and not (rundir.runs_root() / (p.get("run") or p["event"]) / "job.json").exists()]
    for run in rundir.find():
        state = rundir.read_json(run / "state.json")
        if state["state"] in rundir.OPEN_STATES or state["state"] == "interrupted":
            found.append(f"{rundir.recipe_of(run.name)}: left {state['state']}: {state['message']}")
        elif state["state"] == "failed":
            found.append(f"{rundir.recipe_of(run.name)}: failed for good: {state['message']}")
        elif state["state"] == "completed" and rundir.recipe_of(run.name) in _RECIPES:
            found += _whole(run, expected)
    live = Database()
    ingest(live)
    before = _tables(live)
    events = [json.loads(json.dumps(r)) for r in _ids(live)]
    for p in (p for p in promised if "event" in p):
        if events.count(p["event"]) != 1:
            found.append(f"a decision is in {events.count(p['event'])} times")
    live.close()
    fresh = Database(data_root() / "again.duckdb")
    rebuild(fresh)
    after = _tables(fresh)
    fresh.close()
    found += [f"rebuild differs in {name}: {len(before[name])} rows live, {len(after[name])} anew" for name in before
              if before[name] != after[name]]
    if before.get("set_aside"):
        found.append(f"set aside: {before['set_aside'][:2]}")
    return found


def _ids(db: Any) -> list[str]:
    with db.cursor() as cursor:
        return list(cursor.execute("SELECT event_id FROM events").column())


_RECIPES = ("inspect", "train-detector", "backup", "import", "retention", "shadow")

if __name__ == "__main__":
    os.environ.setdefault("DIFFSPECT_SUPERVISOR", "off")
    if sys.argv[1:] == ["facts"]:
        print(json.dumps(_gathered()))
    else:
        print(json.dumps(dict(problems=_check(**json.loads(sys.stdin.read())))))
