"""The supervisor's metrics and health: Prometheus' form and naming, figures against what happened, damage passed over, loopback only."""

import json
import os
import socket
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from backend import __version__, rundir
from backend.jobs import events, exposition, house, locks, told
from tests import small_plant as plant

UNITS = ("_total", "_seconds", "_bytes", "_info", "_created", "_up", "_length", "_runs", "_open", "_waiting", "_fds", "_count", "_sum")


@pytest.fixture
def port(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("DIFFSPECT_METRICS", "0")                 # any free one
    monkeypatch.setattr(told, "_next", [0.0])
    plant.batch([{}])                                            # from before
    with exposition.serving(exposition.Heart()) as port:
        yield port


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return str(answer.read(), "utf-8")


def figures(port: int) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(get(port))}


def value(found: dict[str, Metric], name: str, **labels: str) -> Any:
    (one,) = [s.value for family in found.values() for s in family.samples if s.name == name and s.labels == labels]
    return one


def test_the_form_is_prometheus(port: int) -> None:
    """As promtool would check it: parsed, helped and typed, counters in _total, base units, lower case."""
    found = figures(port)
    ours = [family for name, family in found.items() if name.startswith("diffspect_")]
    assert len(ours) > 8
    for family in ours:
        assert family.documentation and family.type in ("gauge", "counter", "summary", "info") and family.name == family.name.lower()
        assert all(s.name.endswith("_total") for s in family.samples) == (family.type == "counter" or not family.samples)
        assert all(s.name.endswith(UNITS) for s in family.samples), family
    assert value(found, "diffspect_build_info", version=__version__) == 1 and "process_resident_memory_bytes" in found


def test_runs_and_pictures_are_counted_from_the_start_on(port: int) -> None:
    batch = plant.batch([{}, {}, dict(line="L2")], end=False)
    assert value(figures(port), "diffspect_images_inspected_total", plant="real", line="L1") == 2
    plant.add(batch, [{}])
    found = figures(port)
    assert value(found, "diffspect_runs", recipe="inspect", state="pending") == 1 == value(found, "diffspect_queue_length", lane="light")
    assert value(found, "diffspect_image_seconds_count") == 0
    plant.finish(batch)
    rundir.write_json(batch / "result.json", dict(inspected=4, seconds=0.5))
    found = figures(port)
    assert value(found, "diffspect_images_inspected_total", plant="real", line="L1") == 3
    assert value(found, "diffspect_images_inspected_total", plant="real", line="L2") == 1
    assert value(found, "diffspect_runs", recipe="inspect", state="completed") == 2
    assert value(found, "diffspect_queue_length", lane="light") == 0
    assert (value(found, "diffspect_image_seconds_count"), value(found, "diffspect_image_seconds_sum")) == (4, 0.5)
    newest = (plant.NOON + timedelta(minutes=1)).timestamp()
    assert value(found, "diffspect_last_picture_timestamp_seconds", plant="real", line="L1") == newest


def test_the_store_tells_what_only_it_knows(port: int, data_folder: Path) -> None:
    """Alarms, lines, and how late what pages show is."""
    events.record("alarm", dict(id="x#1", cause="x", kind="target", line="L1", text="t"))
    opened = house.opened()
    opened.ingest()
    told._next[0] = 0.0                                          # the app may have told just before the alarm was in
    told.tell(opened.database(), rundir.now())
    found = figures(port)
    assert value(found, "diffspect_alarms_open", plant="real", kind="target") == 1
    assert value(found, "diffspect_last_picture_timestamp_seconds", plant="real", line="L1") == plant.NOON.timestamp()
    assert value(found, "diffspect_ingest_lag_seconds") == 0 and value(found, "diffspect_app_up") == 1
    assert value(found, "diffspect_app_resident_memory_bytes") > 10**7
    house.close()
    plant.batch([{}])
    found = figures(port)
    assert 0 < value(found, "diffspect_ingest_lag_seconds") == pytest.approx(
        time.time() - value(found, "diffspect_ingest_last_success_timestamp_seconds"), abs=20)
    assert value(found, "diffspect_app_up") == 0 and "diffspect_app_resident_memory_bytes" not in found


def test_messages_that_fail_are_counted(port: int) -> None:
    def entry(state: str, attempts: int) -> dict[str, Any]:
        return dict(c1=dict(state=state, attempts=attempts, channel="Chat", where="", log=[]))

    for state, attempts in (("sent", 2), ("waiting", 3), ("given up", 1)):
        run = rundir.run_path(events.record("alarm", dict(id=state)))
        rundir.write_json(run / "deliveries.json", entry(state, attempts))
    found = figures(port)
    assert value(found, "diffspect_message_failures_total", channel="Chat") == 5
    assert value(found, "diffspect_messages_waiting", channel="Chat") == 1
    rundir.write_json(run / "deliveries.json", entry("given up", 2))
    assert value(figures(port), "diffspect_message_failures_total", channel="Chat") == 6


def test_what_is_damaged_is_passed_over(port: int) -> None:
    (plant.batch([{}]) / "state.json").write_bytes(b"{")
    (rundir.run_path(events.record("alarm", dict(id="x"))) / "deliveries.json").write_bytes(b"no")
    (house.data_root() / "told.json").write_text('{"lines": 3}')
    broken = plant.batch([{}], end=False)
    next((broken / "parts").glob("inspections-*")).write_bytes(b"no parquet")
    found = figures(port)
    assert value(found, "diffspect_runs", recipe="inspect", state="completed") == 1 and value(found, "diffspect_disk_free_bytes") > 0


def test_health(port: int, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(get(port, "/health")) == {"status": "ok"}
    monkeypatch.setattr(exposition, "FREE", 10**18)
    monkeypatch.setattr(exposition, "ROUND_S", -1.0)
    rundir.write_json(data_folder / "told.json", dict(taken_in=(datetime.now(UTC) - timedelta(hours=1)).isoformat(), lines=[], alarms={}))
    with locks.hold(data_folder / "app.lock"), pytest.raises(HTTPError) as refused:
        get(port, "/health")
    said = json.loads(refused.value.read())
    assert refused.value.code == 503 and said["status"] == "bad" and len(said["problems"]) == 3
    assert "no round" in said["problems"][0] and "are free" in said["problems"][1] and "for 60 minutes" in said["problems"][2]
    refused.value.close()
    with pytest.raises(HTTPError, match="404") as missing:
        get(port, "/")
    missing.value.close()


def test_only_this_machine_is_answered(port: int) -> None:
    heard = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port]
    assert [h.ip for h in heard] == ["127.0.0.1"]


@pytest.mark.parametrize("asked", ["many", "70000", "-1", "taken"])
def test_a_port_that_cannot_be_had_stops_nothing(asked: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("DIFFSPECT_METRICS", str(other.getsockname()[1]) if asked == "taken" else asked)
        with exposition.serving(exposition.Heart()) as port:
            assert port == 0
    assert "must name a free port" in caplog.text


def test_off_by_default(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFSPECT_METRICS", raising=False)
    with exposition.serving(exposition.Heart()) as port:
        assert port == 0
    plant.batch([{}])
    house.opened().ingest()
    told.tell(house.database(), rundir.now())
    assert not (data_folder / "told.json").exists() and os.environ.get("DIFFSPECT_METRICS") is None
