"""Messages about alarms against a real webhook and a real relay: sent once, tried again, never twice, and no secret anywhere."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backend import rundir
from backend.errors import ConfigError
from backend.jobs import channels, delivery, events, report_runs
from backend.jobs.channels import Channel
from tests.mail_and_hook import Hook, certificate, hook, relay

SECRET = "hunter2-and-more"
TEXT = "Nothing has arrived from Line 2 since 06:10"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path))
    monkeypatch.setenv("DIFFSPECT_SECRET_RELAY", SECRET)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    (tmp_path / "outbound.txt").write_text("127.0.0.1\nlocalhost\nrelay\nx\n")
    return tmp_path


@pytest.fixture
def hooked() -> Iterator[Hook]:
    with hook() as known:
        channel(kind="webhook", url=known.url, secret="DIFFSPECT_SECRET_RELAY")
        yield known


def channel(**more: object) -> Channel:
    made = channels.of_app(Channel(**{"name": "Shift leaders", **more}))           # type: ignore[arg-type]
    events.record("channel", made.to_json())
    return made


def alarm(recipe: str = "alarm", plant: str = "real", **more: object) -> Path:
    config = dict(id="silence|Line 2#1", kind="silence", line="Line 2", text=TEXT, page="trends", query={"line": "Line 2"},
                  hint="Look at camera, lens and light first.", reasons=["Brightness of the master parts: one point below the limits."])
    return rundir.run_path(events.record(recipe, config | more, plant, "lookout"))


def states() -> list[str]:
    return [d.state for d in delivery.log()]


def later(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


# ---- once


def test_an_alarm_is_sent_once_and_so_is_its_end(hooked: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_URL", "http://inspection.plant.example/")
    run = alarm()
    assert [delivery.deliver() for _ in range(3)] == [1, 0, 0] and states() == ["sent"]
    got, = hooked.got
    assert (got["id"], got["event"], got["text"], got["line"]) == (run.name, "opened", TEXT, "Line 2")
    assert got["link"] == "http://inspection.plant.example/trends?line=Line+2" and got["hint"].startswith("Look at camera")
    assert got["headers"]["Idempotency-Key"] == run.name and got["headers"]["Authorization"] == f"Bearer {SECRET}"
    alarm("alarm-over", was=TEXT, text="Pictures arrive again.")
    assert [delivery.deliver() for _ in range(2)] == [1, 0]
    assert hooked.got[1]["event"] == "over" and hooked.got[1]["text"] == f"Over: {TEXT}. Pictures arrive again."
    assert delivery.log()[0].said == "200 OK" and delivery.log()[0].attempts == 1


def test_what_is_not_to_be_sent_is_not(hooked: Hook) -> None:
    alarm(quiet=True)
    alarm(plant="demo")
    channel(kind="webhook", url=hooked.url, over=False)
    alarm("alarm-over", was=TEXT, text="")
    assert delivery.deliver() == 0 and hooked.got == []
    alarm()
    channel(name="New one", kind="webhook", url=hooked.url)
    assert delivery.deliver() == 1, "a channel that is made later is not told of what was before"
    channel(removed=True, kind="webhook")
    alarm()
    assert delivery.deliver() == 1 and [d.channel for d in delivery.log()] == ["New one", "Shift leaders"]


# ---- again, but never twice


def test_a_webhook_that_is_down_is_tried_again_ever_more_seldom(hooked: Hook) -> None:
    hooked.answers = [503, 302, 429]
    alarm()
    assert delivery.deliver() == 0 and delivery.deliver() == 0 and len(hooked.got) == 1, "not before half a minute"
    first, = delivery.log()
    assert first.state == "waiting" and first.said == "The webhook answered 503 Service Unavailable." and first.attempts == 1
    assert 29 < (first.next_at - datetime.now(UTC)).total_seconds() < 31                  # type: ignore[operator]
    assert [delivery.deliver(later(s)) for s in (31, 32, 92, 300)] == [0, 0, 0, 1]
    assert len(hooked.got) == 4 and states() == ["sent"] and all(g["path"] == "/hook" for g in hooked.got), "no redirect is followed"
    assert len({g["headers"]["Idempotency-Key"] for g in hooked.got}) == 1
    assert delivery.deliver(later(4000)) == 0


def test_after_a_day_it_is_given_up_and_a_relay_that_is_down_is_asked_once_a_round(hooked: Hook) -> None:
    hooked.answers = [503] * 3
    alarm()
    alarm()
    assert delivery.deliver() == 0 and len(hooked.got) == 1
    assert delivery.deliver(later(86_500)) == 0 and "given up" in states()


def test_what_may_have_arrived_is_not_sent_again_by_itself(hooked: Hook) -> None:
    hooked.answers = [0]
    run = alarm()
    assert delivery.deliver() == 0 and states() == ["unknown"] and "It may have arrived" in delivery.log()[0].said
    killed = alarm()
    rundir.write_json(killed / "deliveries.json", {Channel(name="Shift leaders", url="http://x").channel_id: dict(
        state="sending", attempts=1, log=[], channel="Shift leaders", where="")})
    assert delivery.deliver() == 0 and delivery.deliver(later(7200)) == 0 and states() == ["unknown", "unknown"] and len(hooked.got) == 1
    events.record("alert-test", dict(channel="Shift leaders", again=run.name))
    assert delivery.deliver() == 1 and hooked.got[1]["id"] == run.name, "a person may ask for it, under the same name"


def test_settings_that_are_mended_lose_no_alarm_that_waits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT_TOKEN", SECRET)
    with hook() as known:
        file, text = folder / "alerts.toml", f'[[channel]]\nname = "Chat"\nurl = "{known.url}"\nsecret = "%s"\n'
        file.write_text(text % "NO_SUCH")
        os.utime(file, (1e9, 1e9))
        alarm()
        assert delivery.deliver() == 0 and states() == ["waiting"]
        file.write_text(text % "PLANT_TOKEN")
        os.utime(file, (later(60).timestamp(),) * 2)
        assert delivery.deliver(later(120)) == 1 and states() == ["sent"] and len(known.got) == 1


@pytest.mark.parametrize("answer", [408, 500, 502, 504])
def test_who_answers_after_a_handover_may_have_it(hooked: Hook, answer: int) -> None:
    hooked.answers = [answer]
    alarm()
    assert [delivery.deliver(later(s)) for s in (0, 40, 4000)] == [0, 0, 0] and states() == ["unknown"] and len(hooked.got) == 1
    assert delivery.log()[0].said.startswith(f"The webhook answered {answer} ")


def test_the_end_of_an_alarm_waits_for_the_alarm(hooked: Hook) -> None:
    hooked.answers = [503]
    alarm()
    alarm("alarm-over", alarm="silence|Line 2#1", was=TEXT, text="Pictures arrive again.")
    assert [delivery.deliver(later(s)) for s in (0, 3, 40)] == [0, 0, 2]
    assert [g["event"] for g in hooked.got] == ["opened", "opened", "over"]
    hooked.answers = [503] * 2
    alarm(id="silence|Line 2#2")
    alarm("alarm-over", alarm="silence|Line 2#2", was=TEXT, text="Pictures arrive again.")
    assert [delivery.deliver(later(s)) for s in (0, 86_500, 86_600)] == [0, 0, 0] and len(hooked.got) == 5, "nobody heard that it began"


def test_a_report_of_a_shift_of_days_ago_is_sent_though_older_alarms_lie_between(folder: Path) -> None:
    """It was made anew now, since pictures came late, and is named by its shift."""
    channel(kind="file", folder="board")
    events.record("report-plan", report_runs.Plan(True, ["Shift leaders"]).to_json())
    old = alarm()
    job = rundir.read_json(old / "job.json")
    rundir.write_json(old / "job.json", job | dict(created_at=later(-60 * 3600).isoformat()))
    old.rename(old.with_name(f"{later(-60 * 3600):%Y%m%d-%H%M%S}{old.name[15:]}"))
    shift = later(-70 * 3600)
    made = rundir.create("shift-report", dict(day=f"{shift:%Y-%m-%d}", shift="Night", plant="real"), by=report_runs.SCHEDULE,
                         state="completed", run_id=f"{shift:%Y%m%d-%H%M%S}-000002-shift-report-abcdef")
    rundir.write_json(made / "facts.json", dict(edition=dict(number=2, before=60, cause=report_runs.PARTS)))
    rundir.write_json(made / "result.json", dict(edition=2, shift="Night", day=f"{shift:%Y-%m-%d}", sentence="A normal shift",
                                                 name="r.html"))
    (made / "report.html").write_text("<!doctype html>")
    assert delivery.deliver() == 1 and (folder / "alerts" / "board" / "r.html").exists()


def test_two_processes_do_not_deliver_at_once(hooked: Hook, folder: Path) -> None:
    from backend.jobs import locks

    alarm()
    with locks.hold(folder / "delivery.lock"):
        assert delivery.deliver() == 0
    assert delivery.deliver() == 1


# ---- mail


def test_mail_goes_by_a_plain_relay_and_says_who_was_refused(folder: Path) -> None:
    with relay() as known:
        channel(kind="mail", server="localhost", port=known.port, security="none", sender="diffspect@plant.example",
                to=["kim@plant.example", "old@plant.example"])
        known.refuses = ("old@plant.example",)
        run = alarm()
        assert delivery.deliver() == 1 and delivery.log()[0].said == "queued as 7; not taken for old@plant.example"
        letter, = known.letters
        assert f"Subject: Diffspect: {TEXT}" in letter and "Look at camera, lens and light first." in letter
        assert f"Message-ID: <{run.name}." in letter and "Auto-Submitted: auto-generated" in letter
        known.hangs_up = True
        alarm()
        assert delivery.deliver() == 0 and states()[0] == "unknown"
        known.hangs_up, known.refuses = False, ("old@plant.example", "kim@plant.example")
        alarm()
        assert delivery.deliver() == 0 and delivery.log()[0].said == "The relay takes mail for none of them: not here."
    assert delivery.deliver(later(40)) == 0 and "cannot be reached" in delivery.log()[0].said


def test_who_is_to_be_tried_again_alone_is_tried_again(folder: Path) -> None:
    with relay() as known:
        channel(kind="mail", server="localhost", port=known.port, security="none", sender="diffspect@plant.example",
                to=["kim@plant.example", "new@plant.example", "old@plant.example"])
        known.refuses, known.greylists = ("old@plant.example",), ("new@plant.example",)
        alarm()
        delivery.deliver()
        assert states() == ["waiting"] and known.taken == ["kim@plant.example"] and "not taken for new@" in delivery.log()[0].said
        known.greylists = ()
        assert delivery.deliver(later(40)) == 1 and states() == ["sent"]
        assert known.taken == ["kim@plant.example", "new@plant.example"] and len(known.letters) == 2


def test_what_nobody_foresaw_is_given_up_and_stops_no_other(hooked: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dict(name="Chiefs", kind="mail", server="relay", sender="a@b", to=["müller@plant.example"])
    events.record("channel", wrong)
    assert [k.channel.name for k in channels.usable()] == ["Shift leaders"]
    said, = channels.passed_over()
    assert said.startswith("Nothing is sent to Chiefs: 'müller@plant.example' has letters")
    events.record("channel", wrong | dict(removed=True))
    assert channels.passed_over() == []
    channel(name="A folder", kind="file", folder="mes")
    run = alarm()
    rundir.write_json(run / "job.json", rundir.read_json(run / "job.json") | dict(config=dict(text=TEXT, query=["no query"])))
    monkeypatch.setenv("DIFFSPECT_URL", "http://x")
    assert delivery.deliver() == 0 and states() == ["given up"] * 2 and "It could not be sent (" in delivery.log()[0].said


@pytest.mark.parametrize("tls", [False, True], ids=["starttls", "tls"])
def test_mail_goes_encrypted_and_with_a_login(folder: Path, tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = certificate(folder)
    with relay(paper, tls, SECRET) as known:
        channel(kind="mail", server="localhost", port=known.port, security="tls" if tls else "starttls", user="plant",
                secret="DIFFSPECT_SECRET_RELAY", sender="diffspect@plant.example", to=["kim@plant.example"])
        run = alarm()
        delivery.deliver()
        assert delivery.log()[0].said.startswith("The relay cannot be trusted: CERTIFICATE_VERIFY_FAILED"), "not to anybody"
        monkeypatch.setenv("SSL_CERT_FILE", str(paper))
        monkeypatch.setenv("DIFFSPECT_SECRET_RELAY", "wrong")
        delivery.deliver(later(40))
        assert delivery.log()[0].said == "The relay refused the login (535)."
        monkeypatch.setenv("DIFFSPECT_SECRET_RELAY", SECRET)
        assert delivery.deliver(later(150)) == 1 and known.logins[-1].endswith(SECRET) and len(known.letters) == 1
    written = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix == ".json")
    assert SECRET.encode() not in written and b"DIFFSPECT_SECRET_RELAY" in written and b"wrong" not in written and run.exists()


# ---- settings


def test_a_test_message_is_tried_once_and_shows_in_the_log(hooked: Hook) -> None:
    hooked.answers = [400]
    events.record("alert-test", dict(channel="Shift leaders"))
    assert delivery.deliver() == 0 and states() == ["given up"]
    events.record("alert-test", dict(channel="Shift leaders"))
    assert delivery.deliver() == 1 and hooked.got[-1]["text"] == "This is a test. Alarms come this way." and delivery.deliver() == 0


def test_files_and_settings_by_config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel(kind="file", folder="for the MES")
    (folder / "alerts.toml").write_text(f'[[channel]]\nname = "Line display"\nkind = "file"\nfolder = "{folder / "display"}"\n')
    run = alarm()
    assert delivery.deliver() == 2 and delivery.deliver() == 0
    for place in (folder / "alerts" / "for the MES", folder / "display"):
        written, = place.iterdir()
        assert written.name == f"{run.name}.json" and json.loads(written.read_text())["text"] == TEXT
    assert [(k.channel.name, bool(k.run_id)) for k in channels.known()] == [("Line display", False), ("Shift leaders", True)]
    (folder / "alerts.toml").write_text("[[channel]\n")
    with pytest.raises(ConfigError, match="alerts.toml cannot be used"):
        channels.known()
    assert [k.channel.name for k in channels.usable()] == ["Shift leaders"], "a mistake there silences nobody else"


@pytest.mark.parametrize(("wrong", "why"), [
    (dict(url="ftp://x"), "begins with http"), (dict(url="https://kim:pw@x/"), "Leave name and password out"), (dict(name=" "), "a name"),
    (dict(url="https://x", secret="my password!"), "not the secret itself"),
    (dict(url="https://["), "cannot be used"),
    (dict(url="https://x", secret="AWS_SECRET_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY: a channel that is set in the app may name only"),
    (dict(url="https://x/{PLANT_TOKEN}"), "begin with DIFFSPECT_SECRET_"),
    (dict(kind="mail", server="r", sender="a@b", to=["a@b"], user="u", secret="P"), "set the channel in alerts.toml"),
    (dict(url="http://x", secret="DIFFSPECT_SECRET_P"), "not encrypted"),
    (dict(url="http://x/{DIFFSPECT_SECRET_P}"), "not encrypted"), (dict(url="http://localhost.x/{DIFFSPECT_SECRET_P}"), "not encrypted"),
    (dict(kind="mail", server="", to=["a@b"]), "name of the plant's"),
    (dict(kind="mail", server="r", sender="a@b", to=["nobody"]), "no mail address"),
    (dict(kind="mail", server="r", sender="a@b"), "to whom"),
    (dict(kind="mail", server="r", sender="a@b", to=["müller@b"]), "ASCII letters"),
    (dict(kind="mail", server="r", sender="a@b", to=["a@b"], user="u"), "needs the name of the variable"),
    (dict(kind="mail", server="r", sender="a@b", to=["a@b"], user="u", secret="DIFFSPECT_SECRET_P", security="none"), "not encrypted"),
    (dict(kind="file", folder=""), "name of a folder"), (dict(kind="file", folder="/etc"), "without slashes"),
    (dict(kind="file", folder="../x"), "without slashes")])
def test_what_is_no_channel_is_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        channels.of_app(Channel(**{"name": "x", "kind": "webhook", **wrong}))                     # type: ignore[arg-type]


def test_secrets_stand_in_for_their_names_and_are_asked_for_when_missing(hooked: Hook) -> None:
    made = channel(name="Chat", kind="webhook", url=hooked.url + "/{DIFFSPECT_SECRET_RELAY}?x={DIFFSPECT_SECRET_NONE}")
    assert SECRET not in made.where and "DIFFSPECT_SECRET_RELAY" not in made.where
    alarm()
    delivery.deliver()
    said = {d.channel: d.said for d in delivery.log()}
    assert said["Chat"] == "The secret DIFFSPECT_SECRET_NONE is set neither in the environment nor in .streamlit/secrets.toml."
