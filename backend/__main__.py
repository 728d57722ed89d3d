"""`python -m backend <recipe>`: every recipe as a command, made from its config class; and bench, resume, rebuild, worker, run.

A recipe runs here in the foreground, in an ordinary run directory. With no app running it is ingested at once; otherwise the
app does that. With --json the last line is one JSON document; any failure is one sentence and an exit code that is not 0.
`DIFFSPECT_DATA` chooses the data folder. Knows nothing of what recipes do.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
import types
import typing
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from backend import formats, rundir
from backend.config import RECIPES, Backup, Config, Import, Restore, Retention, TrainAnomaly, Watch, data_root
from backend.errors import DiffspectError, StoreError
from backend.jobs import bench, events, executor, locks, messenger, operator, supervisor, watching, waves, worker
from backend.store import mounts

PATHS = {"path", "splits", "images", "list", "out", "mvtec", "done", "to", "file", "into"}  # name a file: resolved from where one stands
REFUSED = 10                            # files that could not be used are told, so many
ECHO_S = 5.0                            # between two progress lines where stderr is no terminal


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    options = vars(parser("--json" in given).parse_args(given))
    command, as_json = options.pop("command"), options.pop("json", False)
    try:
        if command in ("accounts", "audit"):
            return operator.main(command, options, as_json)
        if command in UPKEEP:
            return UPKEEP[command](options, as_json)
        if not executor.on_cluster():                            # there the folder is the app machine's, which holds the database
            mounts.refuse_share(data_root())
        if command == "run":
            return worker.main(options["run_id"], limited=True)
        if command == "worker":
            return supervisor.main()
        if command == "messenger":
            return messenger.main()
        if command == "resume":
            return resume(options["run_id"], as_json)
        if command == "bench" and options["benchmark"] == "dashboard":
            return bench_dashboard(options, as_json)
        if command == "bench":
            return bench.inference(options, as_json) if options.pop("benchmark") == "inference" else bench_anomaly(options, as_json)
        if command == "migrate-store":
            return migrate(options, as_json)
        return rebuild(as_json) if command == "rebuild" else run(command, options, as_json)
    except DiffspectError as error:
        return fail(str(error), as_json)
    except KeyboardInterrupt:
        return fail("Stopped.", as_json, 130)


def run(recipe: str, options: dict[str, Any], as_json: bool) -> int:
    """Carry out a recipe here, then take its rows in. Returns the exit code."""
    formats.enter(rundir.runs_root())
    config = RECIPES[recipe].from_json({k: absolute(k, v) for k, v in options.items()})
    there = events.demo_run() if recipe == "demo" else watching.standing(config) if recipe == "watch" else waves.standing(config)
    if there is not None and recipe == "demo":
        return tell(there, as_json, "The demo plant is there already.")
    if there is not None and rundir.read_json(there / "state.json")["state"] == "completed":
        return tell(there, as_json, f"There already: {there.name}")
    if there is not None:
        return resume(there.name, as_json)
    signal.signal(signal.SIGTERM, interrupt)
    events.set_calendar()
    if recipe == "demo":
        events.clear_demo()
    plant = "demo" if recipe == "demo" else str(getattr(config, "plant", "real"))
    with contextlib.closing(Echo()) as echo:
        run_dir = followed(worker.foreground(config, plant, echo), echo)
    ingest()
    return tell(run_dir, as_json)


def followed(run_dir: Path, echo: worker.Echo) -> Path:
    """A folder watch goes on in run after run; the last of them."""
    while following := watching.successor(run_dir):
        job = rundir.read_json(run_dir / "job.json")
        run_dir = worker.foreground(RECIPES[job["recipe"]].from_json(job["config"]), job["plant"], echo, following)
    return run_dir


def resume(run_id: str, as_json: bool) -> int:
    """Take up a run that was stopped or killed. Returns the exit code."""
    formats.enter(rundir.runs_root())
    signal.signal(signal.SIGTERM, interrupt)
    with contextlib.closing(Echo()) as echo:
        run_dir = followed(worker.again(run_id, echo), echo)
    ingest()
    return tell(run_dir, as_json)


def bench_anomaly(options: dict[str, Any], as_json: bool) -> int:
    """A table of all categories, row by row as they come about. Returns the exit code."""
    folder = Path(absolute("mvtec", options.pop("mvtec")))
    config = TrainAnomaly.from_json(options)
    signal.signal(signal.SIGTERM, interrupt)
    events.set_calendar()
    rows: dict[str, bench.Figures] = {}
    for category in bench.categories(folder):
        with contextlib.closing(Echo()) as echo:
            rows[category.name] = bench.anomaly(category, config, echo)
        ingest()
        if not as_json:
            print("\n".join([*([bench.titles()] if len(rows) == 1 else []), bench.line(category.name, rows[category.name])]), flush=True)
    if as_json:
        print(json.dumps(dict(categories=rows, mean=bench.mean(rows), published=bench.PUBLISHED, source=bench.SOURCE)), flush=True)
    else:
        print("\n".join([bench.line(f"mean of {len(rows)}", bench.mean(rows)), bench.line(bench.SOURCE, bench.PUBLISHED)]), flush=True)
    return 0


def bench_dashboard(options: dict[str, Any], as_json: bool) -> int:
    """Loaded when asked for: it brings the database along. Returns the exit code."""
    from backend.jobs import bench_dashboard as measured

    signal.signal(signal.SIGTERM, interrupt)
    return measured.main(options, as_json)


def absolute(key: str, value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    path = Path(value).expanduser()
    named = {"prior": path / "model_index.json", "weights": path}                            # either has a name, or lies there
    is_path = key in PATHS or (key in named and named[key].is_file())
    return str(path.resolve()) if is_path else value


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends a run as Ctrl-C does; a second one may not disturb the ending."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def ingest() -> None:
    """Take in what is new, unless the app has the database: then it does so itself, within seconds."""
    from backend.store import ingest as store
    from backend.store import lake

    try:
        with locks.hold(messenger.look_lock(), messenger.OPEN_S):        # a look for alarms does not take long
            opened = lake.opened(data_root() / "inspection.duckdb")
    except StoreError:
        return
    try:
        store.ingest(opened)
    finally:
        opened.close()


def preflight(options: dict[str, Any], as_json: bool) -> int:
    """What this machine and this folder are like. Returns 1 where something is bad."""
    from backend.jobs import preflight as checks

    lines = checks.lines()
    if as_json:
        print(json.dumps([dataclasses.asdict(line) for line in lines], ensure_ascii=False), flush=True)
    else:
        print("\n".join(f"{one.word:<10} {one.name}: {one.said}" + (f"\n{'':<11}{one.do}" if one.do else "") for one in lines), flush=True)
    return int(any(one.state == "bad" for one in lines))


def backup(options: dict[str, Any], as_json: bool) -> int:
    """As a run; without one where the data disk takes no run any more. Returns the exit code."""
    from backend.jobs import archives

    mounts.refuse_share(data_root())
    try:
        return run("backup", options, as_json)
    except OSError as error:
        if error.errno not in archives.NO_ROOM:
            raise
    config = Backup.from_json({k: absolute(k, v) for k, v in options.items()})
    with contextlib.closing(Echo()) as echo:
        return show(archives.backup(config, None, archives.Told(echo)), as_json, "Done, without a run: the data disk takes none.")


def restore(options: dict[str, Any], as_json: bool) -> int:
    """Into an empty folder, whatever has become of the data folder. Returns the exit code."""
    from backend.jobs import archives

    config = Restore.from_json({k: absolute(k, v) for k, v in options.items()})
    with contextlib.closing(Echo()) as echo:
        return show(archives.restore(config, None, archives.Told(echo)), as_json, "Restored.")


def retain(options: dict[str, Any], as_json: bool) -> int:
    """Only what would go, unless it is said to let go indeed. Returns the exit code."""
    from backend.jobs import retention

    mounts.refuse_share(data_root())
    if options.get("apply"):
        return run("retention", options, as_json)
    return show(retention.outlook(Retention.from_json(options)), as_json, "Nothing was let go. With --apply would go:")


UPKEEP = {"preflight": preflight, "backup": backup, "restore": restore, "retention": retain}       # these see to the folder themselves


def migrate(options: dict[str, Any], as_json: bool) -> int:
    """The file's rows into a lake, which is named here or in the environment. Returns the exit code."""
    from backend.store import lake, migration, place

    for name, key in (("to", "DIFFSPECT_STORE"), ("files", "DIFFSPECT_STORE_FILES"), ("plant", "DIFFSPECT_PLANT")):
        os.environ[key] = options[name] or os.environ.get(key, "")
    if (where := place.chosen()) is None:
        raise StoreError("Which lake? Say --to 'postgres:host=... dbname=...' --files DIR --plant NAME.")
    with (locks.hold(messenger.look_lock(), messenger.OPEN_S), contextlib.closing(lake.Lake(where)) as opened,
          contextlib.closing(Echo()) as echo):
        copied = migration.migrate(data_root() / "inspection.duckdb", opened, lambda table, done, of: echo(
            dict(step=done, total=of, eta_s=None, message=f"rows of {table}")))
    said = (f"{sum(copied.values()):,} rows of {len(copied)} tables are in the lake, counted and summed on both sides. "
            "From now on start with\n")
    print(json.dumps(copied) if as_json else said + "\n".join(f"  {key}={value!r}" for key, value in (
        ("DIFFSPECT_STORE", where.told), ("DIFFSPECT_STORE_FILES", str(where.files)), ("DIFFSPECT_PLANT", where.plant))))
    return 0


def rebuild(as_json: bool) -> int:
    """Make the database again from the run directories."""
    formats.enter(rundir.runs_root())
    from backend.store import ingest as store
    from backend.store import lake

    with locks.hold(messenger.look_lock(), messenger.OPEN_S):
        opened = lake.opened(data_root() / "inspection.duckdb")
    try:
        parts = store.rebuild(opened)
    finally:
        opened.close()
    print(json.dumps({"parts": parts}) if as_json else f"The database was made again from {parts} parts.")
    return 0


def tell(run_dir: Path, as_json: bool, note: str = "") -> int:
    """Say how the run ended. Returns the exit code."""
    state = rundir.read_json(run_dir / "state.json")
    if state["state"] in ("failed", "canceled"):
        more = {"run_id": run_dir.name, "state": state["state"]}
        return fail(state["message"], as_json, 130 if state["state"] == "canceled" else 1, more)
    result = rundir.read_json(run_dir / "result.json") if (run_dir / "result.json").exists() else {}
    nothing = result.get("inspected") == 0 and bool(result.get("refused"))          # a damaged zip is no success
    if as_json:
        print(json.dumps({"run_id": run_dir.name, "state": state["state"], "result": result}, ensure_ascii=False), flush=True)
    else:
        show(result, False, note or f"Done: {run_dir.name}")
        unusable(rundir.rows(run_dir, "refused").to_pylist() if rundir.parts(run_dir, "refused") else [])
    if nothing:
        print("Nothing of it could be looked at.", file=sys.stderr)
    return int(nothing)


def unusable(refused: list[dict[str, Any]]) -> None:
    """The first files that could not be used, with the reason."""
    for row in refused[:REFUSED]:
        print(f"  not usable: {row['file_name']}: {row['reason']}")
    if len(refused) > REFUSED:
        print(f"  and {len(refused) - REFUSED:,} more")


def show(result: dict[str, Any], as_json: bool, head: str) -> int:
    """What came out, a line each. Returns the exit code."""
    if as_json:
        print(json.dumps({"result": result}, ensure_ascii=False), flush=True)
        return 0
    print(head)
    for key, value in result.items():
        if value and isinstance(value, dict) and not any(isinstance(v, (dict, list)) for v in value.values()):
            value = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in value.items())
        if key == "refused" and isinstance(value, list):
            print(f"  refused: {len(value):,}")
        elif not isinstance(value, (dict, list)):
            print(f"  {key.replace('_', ' ')}: {value}")
    if isinstance(result.get("refused"), list):
        unusable(result["refused"])
    for sentence in [*result.get("notes", []), *result.get("warnings", [])]:        # what a person should know before trusting it
        print(f"  {sentence}")
    return 0


def fail(message: str, as_json: bool, code: int = 1, more: dict[str, Any] | None = None) -> int:
    print(message, file=sys.stderr)
    if (more or {}).get("state") == "failed":
        print(f"The log is {rundir.run_path((more or {})['run_id']) / 'log.txt'}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message, **(more or {})}, ensure_ascii=False), flush=True)
    return code


class Echo:
    """Progress on the person's terminal: one line that rewrites itself, or now and then a line where there is no terminal.

    Writes to a copy of stderr, because the run's output goes to its log meanwhile.
    """

    def __init__(self) -> None:
        self.stream = open(os.dup(sys.stderr.fileno()), "w", errors="replace")
        self.rewrites = self.stream.isatty()
        self.last = time.monotonic()

    def __call__(self, progress: dict[str, Any]) -> None:
        if not self.rewrites and time.monotonic() < self.last + ECHO_S:
            return
        self.last = time.monotonic()
        left = f", about {duration(progress['eta_s'])} left" if progress["eta_s"] else ""
        line = f"{progress['step']} of {progress['total']}{left}  {progress['message']}"
        self.stream.write(f"\r{line[:110]:<110}" if self.rewrites else f"{line}\n")
        self.stream.flush()

    def close(self) -> None:
        with self.stream:
            self.stream.write("\n" if self.rewrites else "")


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def parser(as_json: bool) -> argparse.ArgumentParser:
    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            if as_json:
                print(json.dumps({"error": message}), flush=True)
            super().error(message)

    top = Parser(prog="python -m backend", description="Surface inspection from the command line. DIFFSPECT_DATA chooses the data folder.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    for name, config in RECIPES.items():
        about = (config.__doc__ or name).splitlines()[0]
        add_fields(commands.add_parser(name, help=about, description=about), config)
    again = commands.add_parser("rebuild", help="Make the database again from the run directories.")
    again.add_argument("--json", action="store_true", help="print one JSON document as the last line")
    moved = commands.add_parser("migrate-store", help="Take the database's rows along into the store of several plants (docs/plants.md).")
    for name, about in (("to", "Its catalogue: postgres: and a connection string."), ("files", "Folder that all plants reach."),
                        ("plant", "This plant's name in it.")):
        moved.add_argument(f"--{name}", default="", help=about)
    moved.add_argument("--json", action="store_true", help="print one JSON document as the last line")
    more = commands.add_parser("resume", help="Take up a run that was stopped or killed, from its last checkpoint.")
    more.add_argument("run_id", help="Its name in the folder of runs.")
    more.add_argument("--json", action="store_true", help="print one JSON document as the last line")
    measured = commands.add_parser("bench", help="Measure a method on a public benchmark's images.")
    about = "Train and score an anomaly model for every category of MVTec AD, or of a set in its layout."
    benchmarks = measured.add_subparsers(dest="benchmark", required=True, metavar="benchmark")
    of = benchmarks.add_parser("anomaly", help=about, description=about)
    of.add_argument("--mvtec", required=True, metavar="DIR", help="Folder with a folder for each category.")
    add_fields(of, TrainAnomaly, without=("dataset", "name", "denoiser"))
    about = "The dashboard on a plant of many inspections: every query, every page, eight visitors, and rows that come in meanwhile."
    of = benchmarks.add_parser("dashboard", help=about, description=about)
    of.add_argument("--rows", type=int, default=10_000_000, metavar="N", help="Inspections (default: 10 million); a tenth is measured too.")
    of.add_argument("--data", default="", metavar="DIR", help="Folder of its own, where a stopped benchmark goes on (default: temporary).")
    of.add_argument("--seed", type=int, default=0, metavar="N", help="Of the drawn plant (default: 0).")
    of.add_argument("--rounds", type=int, default=5, metavar="N", help="How often each question and page is asked (default: 5).")
    of.add_argument("--json", action="store_true", help="print one JSON document as the last line")
    about = "Pictures a second from files to rows, against `yolo predict` and the bare runtime. Ten minutes on an idle machine."
    of = benchmarks.add_parser("inference", help=about, description=about)
    of.add_argument("--imgsz", type=int, nargs="+", default=[224, 640], metavar="SIDE", help="Sides of the input (default: 224 640).")
    of.add_argument("--rounds", type=int, default=5, metavar="N", help="Rounds of all contestants in turn (default: 5).")
    of.add_argument("--images", type=int, metavar="N", help="Pictures of a round (default: 1,440 at 224 px, 360 at 640 px).")
    of.add_argument("--model", default="", metavar="NAME", help="A deployed YOLO11 detector (default: the demo model).")
    of.add_argument("--json", action="store_true", help="print one JSON document a size")
    checked = commands.add_parser("preflight", help="What this machine and this data folder are like, and what to do about it.")
    checked.add_argument("--json", action="store_true", help="print one JSON document as the last line")
    operator.commands(commands)
    commands.add_parser("worker", help="Carry out the runs that the dashboard submits (it starts this by itself).")
    commands.add_parser("messenger")                             # as the next one
    inner = commands.add_parser("run")                           # without help: it is the supervisor's
    inner.add_argument("run_id", nargs="?")
    inner.add_argument("--warm", action="store_true")
    return top


def arms_of(text: str) -> dict[str, list[str]]:
    """'real=RUN,RUN;both=RUN,RUN' -> runs by arm."""
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    if not all(name.strip() and ids.strip() for name, _, ids in pairs):
        raise argparse.ArgumentTypeError("name the runs of each arm, such as real=RUN,RUN;both=RUN,RUN")
    return {name.strip(): [i.strip() for i in ids.split(",") if i.strip()] for name, _, ids in pairs}


def add_fields(to: argparse.ArgumentParser, config: type[Config], without: tuple[str, ...] = ()) -> None:
    """One flag a setting, with dashes or underscores; only those given reach the config, which has the defaults."""
    to.add_argument("--json", action="store_true", help="print one JSON document as the last line")
    hints = typing.get_type_hints(config)
    for f in (f for f in dataclasses.fields(config) if f.name not in without):
        hint = hints[f.name]
        kind = next(k for k in typing.get_args(hint) if k is not type(None)) if isinstance(hint, types.UnionType) else hint
        default = "" if f.default in ("", None, dataclasses.MISSING) else f" (default: {f.default})"
        parse = arms_of if typing.get_origin(kind) is dict else kind
        if kind is bool:
            to.add_argument(f"--{f.name.replace('_', '-')}", dest=f.name, default=argparse.SUPPRESS, action=argparse.BooleanOptionalAction,
                            help=(f.metadata["help"] + (" (default: yes)" if f.default else "")).replace("%", "%%"))
            continue
        more: dict[str, Any] = dict(help=(f.metadata["help"] + default).replace("%", "%%"), type=parse, choices=f.metadata.get("choices"))
        if (config, f.name) in ((Import, "path"), (Watch, "images"), (Restore, "file")):
            to.add_argument(f.name, **more, metavar="DIR" if config is Watch else None)
        else:
            called = f.metadata.get("flag") or f.name
            flags = dict.fromkeys((f"--{called.replace('_', '-')}", f"--{called}"))
            shown = None if more["choices"] else kind.__name__.upper()
            to.add_argument(*flags, dest=f.name, default=argparse.SUPPRESS, metavar=shown, **more)


if __name__ == "__main__":
    sys.exit(main())
