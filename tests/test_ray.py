"""Runs on a Ray cluster of two nodes, a core each: they end, wait, stop, are lost and go on as runs of this machine do; a folder that all
nodes look at comes to the same rows."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from backend import jobs, rundir
from backend.config import Inspect
from backend.errors import ConfigError, InputError
from backend.inspection import inspect
from backend.jobs import cluster, locks, recipes, runs, spread, supervisor
from pages.components import run_panel
from tests import ray_cluster
from tests.recipes import HeavyTrial, Trial
from tests.test_inspect import encoded, folder
from tests.test_jobs import wait_for
from tests.tiny_model import bundle

LONG = 150.0              # both nodes on a machine that does other work besides: 90 s were once too few


@pytest.fixture(scope="module")
def nodes() -> Iterator[ray_cluster.Nodes]:
    with ray_cluster.nodes(2) as made:
        yield made


@pytest.fixture
def many(supervised: Path, nodes: ray_cluster.Nodes, monkeypatch: pytest.MonkeyPatch) -> ray_cluster.Nodes:
    """A data folder whose supervisor hands its runs to the cluster."""
    monkeypatch.setenv("DIFFSPECT_EXECUTOR", "ray")
    monkeypatch.setenv("DIFFSPECT_RAY", nodes.address)
    return nodes


def running(*run_ids: str) -> bool:
    return all(jobs.status(r).state == "running" for r in run_ids)


def of(run_id: str) -> dict[str, Any]:
    return runs.state(rundir.run_path(run_id))


# without a cluster ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value", "said"), [
    ("DIFFSPECT_EXECUTOR", "slurm", "DIFFSPECT_EXECUTOR is local or ray, not 'slurm'"),
    ("DIFFSPECT_RAY_CPUS", "many", "DIFFSPECT_RAY_CPUS is a number, not 'many'"),
    ("DIFFSPECT_RAY_RUNS", "0", "DIFFSPECT_RAY_RUNS is a number, not '0'"),
    ("DIFFSPECT_RAY_EACH", "none", "DIFFSPECT_RAY_EACH is a number, not 'none'"),
    ("DIFFSPECT_RAY_GPUS", "-1", "DIFFSPECT_RAY_GPUS is a number, not '-1'"),
    ("DIFFSPECT_RAY_RUNS", "nan", "DIFFSPECT_RAY_RUNS is a number, not 'nan'")])
def test_settings_without_sense_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv("DIFFSPECT_EXECUTOR", "ray")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        cluster.chosen()


def test_what_a_run_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training a GPU where there is one, and the cores of a node; a verdict a core."""
    small, large = cluster.Size(((4, 0), (4, 0))), cluster.Size(((64, 0), (64, 0), (6, 4)))
    assert cluster.Share.of("train-detector", small) == cluster.Share(4, 0)
    assert cluster.Share.of("train-detector", large) == cluster.Share(6, 1), "of nodes with a GPU"
    assert cluster.Share.of("compare", large) == cluster.Share(1, 0)
    assert cluster.Share.of("inspect", small) == cluster.Share(2, 0) and cluster.Share.of("inspect", large) == cluster.Share(2, 1)
    assert large.fits(cluster.Share(6, 1)) and not large.fits(cluster.Share(8, 1))
    monkeypatch.setenv("DIFFSPECT_RAY_GPUS", "0.5")
    monkeypatch.setenv("DIFFSPECT_RAY_CPUS", "2")
    assert cluster.Share.of("train-detector", large) == cluster.Share(2, 0.5)


def test_no_more_is_handed_over_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """But the first always is, so that Ray may say what it lacks."""
    monkeypatch.setattr(cluster.Cluster, "_serve", lambda self: None)
    many = cluster.Cluster()
    train, verdict = "20261130-120000-000000-train-detector-abcde{}", "20261130-120000-000000-compare-abcde{}"
    assert many.has_room("train-detector")
    many.find(f"{verdict.format(0)}-1")
    assert not many.has_room("compare"), "nothing is known of it yet"
    many = cluster.Cluster()
    many.size = cluster.Size(((4, 0), (6, 0)))
    many.start(train.format(1), 1)
    assert cluster.Share.of("train-detector", many.size).cpus == 6
    many.find(f"{verdict.format(2)}-1")
    assert not many.has_room("train-detector") and many.has_room("compare") and many.has_room("inspect")
    many.find(f"{verdict.format(3)}-1")
    assert many.has_room("compare")
    monkeypatch.setenv("DIFFSPECT_RAY_RUNS", "3")
    assert not many.has_room("compare")
    many.stop(f"{train.format(1)}-1")
    assert many.has_room("compare"), "what is being stopped is not counted"


class Server:
    """A job server's answers, in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[str]()

    def _answer(self, what: str) -> Any:
        self.asked.append(what)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_job_info(self, job_id: str) -> Any:
        return self._answer("info")

    def submit_job(self, **job: Any) -> Any:
        return self._answer("submit")

    def stop_job(self, job_id: str) -> Any:
        return self._answer("stop")

    def delete_job(self, job_id: str) -> Any:
        return self._answer("delete")


def said(status: str, message: str = "", code: int | None = None) -> Any:
    """A job server's word on a job."""
    terminal = status in ("FAILED", "SUCCEEDED", "STOPPED")
    return SimpleNamespace(status=SimpleNamespace(value=status, is_terminal=lambda: terminal), message=message, driver_exit_code=code)


UNKNOWN, BUSY = RuntimeError("Request failed with status code 404: no 404"), RuntimeError("Request failed with status code 500: No agent")


def test_what_the_server_cannot_do_now_is_wished_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it has given up before it began is handed over anew, under the same name."""
    monkeypatch.setattr(cluster.Cluster, "_serve", lambda self: None)
    many, job = cluster.Cluster(), "20261130-120000-000000-compare-abcdef-1"
    many.start(job[:-2], 1)
    for server, asked in ((Server(UNKNOWN, BUSY), ["info", "submit"]),
                          (Server(said("FAILED", code=75), None, None), ["info", "delete", "submit"]),
                          (Server(said("RUNNING")), ["info"])):
        if server.answers[-1] is BUSY:
            with pytest.raises(RuntimeError, match="No agent"):
                many._do(server)                                 # type: ignore[arg-type]
        else:
            many._do(server)                                     # type: ignore[arg-type]
            many._wishes.put(("start", job))
        assert server.asked == asked
    many._wishes.get()
    many.stop(job)
    stubborn = Server(BUSY)
    with pytest.raises(RuntimeError, match="No agent"):
        many._do(stubborn)                                       # type: ignore[arg-type]
    many._do(willing := Server(None))                            # type: ignore[arg-type]
    assert willing.asked == ["stop"]


def test_what_an_end_means() -> None:
    seen = [cluster._Seen(cluster.Share(1, 0)) for _ in range(5)]
    ends = [said("FAILED", "Job failed to start within 900 seconds"), said("FAILED", "a\nexit code 127: not found", 127),
            said("SUCCEEDED", code=0), said("FAILED", "its node died"), said("STOPPED")]
    for one, end in zip(seen, ends, strict=True):
        one.take(end)
    assert [one.code for one in seen] == [cluster.WAITED, 127, 0, cluster.LOST, -signal.SIGTERM]
    assert seen[1].said == "exit code 127: not found"


def test_a_share_that_no_node_has_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.Cluster, "_serve", lambda self: None)
    monkeypatch.setenv("DIFFSPECT_RAY_GPUS", "2")
    many, job = cluster.Cluster(), "20261130-120000-000000-train-detector-abcdef-1"
    many.size = cluster.Size(((8, 1), (8, 0)))
    many.start(job[:-2], 1)
    many._do(Server(UNKNOWN))                                    # type: ignore[arg-type]
    assert many.code(job) == 1 and "No machine of the cluster has 1 cores and 2 GPUs" in many.forget(job)


def test_how_many_look_at_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for nodes, each in (([{}, {"CPU": 5}, {"CPU": 4}], dict(concurrency=(1, 4), num_cpus=2, num_gpus=None)),
                        ([{"CPU": 1}] * 3, dict(concurrency=(1, 3), num_cpus=1, num_gpus=None)),
                        ([{"CPU": 64}, {"CPU": 8, "GPU": 4.0}], dict(concurrency=(1, 4), num_cpus=2, num_gpus=1))):
        assert {k: v for k, v in spread.inspectors(nodes).items() if k != "runtime_env"} == each
    monkeypatch.setenv("DIFFSPECT_RAY_EACH", "4")
    assert spread.inspectors([{"CPU": 16}])["concurrency"] == (1, 4)


def test_a_job_knows_no_secret(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster shows what jobs were given to whoever asks."""
    monkeypatch.setenv("DIFFSPECT_SECRET_MAIL", "hunter2")
    monkeypatch.setenv("DIFFSPECT_STORE", "postgres:host=db password=hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    given = cluster.surroundings("r-1", cluster.Share(2, 0))
    assert "hunter2" not in str(given) and "hunter2" not in str(spread.inspectors([{"CPU": 1}]))
    assert (given["DIFFSPECT_DATA"], given["DIFFSPECT_CORES"], given["DIFFSPECT_ON_CLUSTER"]) == (str(data_folder), "2", "r-1")


def test_each_recipe_has_its_place() -> None:
    """What somebody waits for in front of the page, and what sees to the app's own machine, stays; the rest goes."""
    assert {r for r in recipes.FUNCTIONS if not recipes.for_cluster(r, {"images": "/photos"})} == recipes.HERE
    assert recipes.HEAVY.isdisjoint(recipes.HERE)
    assert not recipes.for_cluster("inspect", {"images": ""}) and not recipes.for_cluster("predict", {"images": ""})


def test_a_run_waits_for_a_cluster_that_is_away(supervised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in the log, can be canceled, and what needs no cluster goes on."""
    monkeypatch.setenv("DIFFSPECT_EXECUTOR", "ray")
    monkeypatch.setenv("DIFFSPECT_RAY", f"http://127.0.0.1:{ray_cluster.free_port()}")
    waits = jobs.submit(HeavyTrial(do="count", steps=2))
    log = supervised / "logs" / "supervisor.log"
    wait_for(lambda: log.exists() and "does not answer" in log.read_text(), LONG)
    assert jobs.status(waits).state == "pending"
    with pytest.raises(ConnectionError, match="No Ray cluster answers at http://127.0.0.1"):
        cluster.size()
    jobs.cancel(waits)
    assert jobs.status(waits).state == "canceled"


def test_a_folder_that_a_node_does_not_see(tmp_path: Path) -> None:
    inspector = spread.Inspector.__new__(spread.Inspector)           # its constructor lays limits on the process
    inspector.folders = (str(tmp_path), "/nowhere")
    with pytest.raises(InputError, match="of the cluster does not see /nowhere"):
        inspector({})


# with one ------------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(400)
def test_runs_at_once_and_one_whose_node_dies(many: ray_cluster.Nodes) -> None:
    """Two nodes, two runs at once, a third waits; a killed node's run goes on elsewhere from where it was, no row lost or doubled."""
    first, second = (jobs.submit(HeavyTrial(do="write", steps=400, pause=0.05, name=n)) for n in ("first", "second"))
    third = jobs.submit(HeavyTrial(do="print", name="third"))
    wait_for(lambda: running(first, second), LONG)
    assert jobs.status(third).state == "pending" and of(first)["on"] == f"{first}-1"
    assert run_panel.progress_text(jobs.status(third)) == "Starts as soon as the machine is free."
    wait_for(lambda: jobs.status(first).step >= 5 and jobs.status(second).step >= 5)

    many.kill(0)
    wait_for(lambda: {of(first)["attempt"], of(second)["attempt"]} == {1, 2}, LONG)
    lost = first if of(first)["attempt"] == 2 else second
    assert of(lost)["lost"] == 1
    many.add()
    for run_id in (first, second):
        done = wait_state_long(run_id, "completed", "failed", "interrupted")
        assert done.state == "completed", done.message
        assert (done.result["began_with"] >= 5) == (run_id == lost)
        parts = [rundir.read_part(p) for p in rundir.parts(rundir.run_path(run_id), "inspections")]
        ids = pa.concat_tables(parts)["inspection_id"].to_pylist()
        assert len(ids) == len(set(ids)) == 4000

    assert wait_state_long(third, "completed", "failed").state == "completed"
    assert jobs.log_tail(third).splitlines()[:2] == ["from python", "from a child"]


def wait_state_long(run_id: str, *states: str) -> jobs.RunStatus:
    wait_for(lambda: jobs.status(run_id).state in states, LONG)
    return jobs.status(run_id)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_canceled_failed_and_found_again(many: ray_cluster.Nodes, supervised: Path) -> None:
    """As on this machine: a run that waits, one that listens, one that is deaf; a failure's sentence; a supervisor that is killed."""
    for do in ("raise", "plain", "kernel"):
        ended = wait_state_long(jobs.submit(HeavyTrial(do=do)), "failed", "completed")
        assert ended.state == "failed" and ended.message
    deaf, listens = (jobs.submit(HeavyTrial(do=do, steps=2000, pause=0.05)) for do in ("stuck", "count"))
    waits = jobs.submit(HeavyTrial(do="count"))
    wait_for(lambda: running(deaf, listens) and jobs.status(listens).step > 2, LONG)
    child = int((rundir.run_path(deaf) / "child").read_text())

    holder = locks.holder(supervisor.lock_path())
    assert holder is not None
    os.kill(holder, signal.SIGKILL)
    wait_for(lambda: not supervisor.alive())
    for run_id in (waits, listens, deaf):
        jobs.cancel(run_id)
    jobs.submit(Trial(do="count"))                               # a submission starts another supervisor
    for run_id in (waits, listens, deaf):
        assert wait_state_long(run_id, "canceled", "completed", "failed", "interrupted").state == "canceled"
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    jobs.resume(listens)
    wait_for(lambda: running(listens), LONG)
    jobs.cancel(listens)
    wait_state_long(listens, "canceled")


@pytest.mark.timeout(400)
def test_all_nodes_look_at_a_folder(many: ray_cluster.Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows as on one machine: refusals, repeated pictures and order included."""
    bundle(rundir.create("train-detector", {}, state="completed") / "model", thresholds={"pit": 0.6, "scratch": 0.6})
    pictures = {f"part/{k:03d}.png": encoded(k) for k in range(150)}
    photos = folder(tmp_path / "photos", pictures | {"part/0601.png": encoded(60), "0.png": encoded(149), "bad.png": b"no"})
    config = Inspect(model="tiny", images=str(photos), line="L1")
    by_all = jobs.submit(config)
    ended = wait_state_long(by_all, "completed", "failed")
    assert ended.state == "completed", ended.message
    assert of(by_all)["on"] == f"{by_all}-1"

    here = rundir.create("inspect", config.to_json(), state="running")
    result = inspect.run(config, here, lambda **told: None)
    assert (result["inspected"], result["refused"]) == (150, 3)
    assert all(ended.result[k] == result[k] for k in ("inspected", "refused", "defective"))
    for table in ("inspections", "detections", "refused"):
        assert rows(rundir.run_path(by_all), table) == rows(here, table)


def rows(run_dir: Path, table: str) -> list[dict[str, Any]]:
    """Without what differs between two runs: their ids, and moments."""
    found = pa.concat_tables([rundir.read_part(p) for p in rundir.parts(run_dir, table)]).to_pylist()
    first = min((r["inspection_id"] for r in found if "inspection_id" in r), default=0)
    return [{k: v - first if k == "inspection_id" else v for k, v in row.items() if k not in ("ingested_at", "captured_at")}
            for row in found]
