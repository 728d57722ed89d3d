"""Who may do what: every function of the façade, each role, sign-in, lockout, sessions, who reaches the server, and the command line."""

import ast
import inspect
import io
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import argon2
import pytest

from backend import jobs, rundir
from backend.__main__ import main
from backend.errors import AccessError, ConfigError, NotFoundError, StoreError
from backend.jobs import accounts, audit, entrance, events, gallery, house, labelling, needs, people, results, sampling, signing, tries
from backend.jobs.needs import Person
from tests import small_plant as plant

ROOT = Path(__file__).resolve().parents[1]
SECRET = "the roll was changed at noon"

# What only reads. A new function of the façade is put here by hand, or says above itself what else it needs.
READERS = {
    "jobs": """arithmetics compare comparison estimate estimate_stages expected_cost experiment experiments exported live_metrics log_tail
        plan_experiment recent run_file status synthetic watches""",
    "results": """alarms alert_rules anew annotations anomaly_scores batch box_sizes boxes_of breakdown calendar changed changes choices
        compared confusion contest control_charts control_choices control_trial counted curve_names curves damaged dataset_counts
        dataset_images datasets detections duplicates elsewhere export heat hint images images_count imaging inspection known labels
        lines_elsewhere lines_now look_back looked_back looks metrics models named_kinds notes operating pareto per_million picture plants
        pr_curve put_to_use raw_scores refused review_queue reviews revision rules scored_runs settled shift_report shifts software_checks
        standstills synthetic_picture target_outcomes targets test_images to_look_back_on totals trend unusual_rule unusual_trend""",
    "sampling": "ability earlier picture sampled",
    "labelling": "begin count from_cvat to_cvat waiting",
    "people": "figures_of",
}
# What pages ask of other modules of `backend.jobs`, which the other side of the process border asks too: all of it reads or computes.
PLAIN = """channels.known channels.usable channels.passed_over channels.of_app delivery.log delivery.asked report_runs.plan
    report_runs.reports report_runs.Plan spreadsheet.csv privileges.warning signals.title signals.sentence signals.when
    two_periods.before entrance.may_listen entrance.why_not entrance.here entrance.Request entrance.over_tls entrance.host_of
    needs.why_not needs.asked_of needs.Person"""


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2id still, with 64 KiB in place of 64 MiB."""
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(accounts, "hasher", lambda: cheap)


@pytest.fixture
def staff(data_folder: Path) -> Iterator[Callable[[str], Any]]:
    """A plant with a manager, an engineer and an admin; `staff("Kim")` acts as that person for the length of a block."""
    with needs.acting_as(Person("root (command line)", "admin", "operator")):
        for name, role in (("Ana", "admin"), ("Kim", "manager"), ("Ole", "engineer"), ("Uli", "engineer")):
            people.add(name, role, SECRET)
    yield lambda name: needs.acting_as(Person(name, accounts.find(name).role))
    house.close()


def facade() -> Iterator[tuple[str, str, FunctionType]]:
    for module in (jobs, results, sampling, labelling, people, *_more()):
        for name, fn in vars(module).items():
            inner = getattr(fn, "__module__", "") or ""
            if isinstance(fn, FunctionType) and not name.startswith("_") and inner.startswith("backend.jobs") and name in _offered(module):
                yield module.__name__.rpartition(".")[2], name, fn


def _offered(module: ModuleType) -> set[str]:
    own = {n for n, f in vars(module).items() if getattr(f, "__module__", "") == module.__name__}
    return set(getattr(module, "__all__", ())) | own


def _more() -> list[ModuleType]:
    """Modules of the façade that came later: whatever says needs of its own."""
    from importlib import import_module

    return [import_module(f"backend.jobs.{p.stem}") for p in (ROOT / "backend" / "jobs").glob("*.py")
            if "reading(globals())" in p.read_text() and p.stem not in ("__init__", "results", "sampling", "labelling", "people", "needs")]


HELPERS = {"of_event", "of_run", "reading", "signed", "claimed", "asked_of", "why_not"}   # of `needs`: they guard


@pytest.mark.parametrize(("module", "name", "fn"), [pytest.param(m, n, f, id=f"{m}.{n}") for m, n, f in facade() if n not in HELPERS])
def test_each_function_of_the_facade_says_what_it_needs(module: str, name: str, fn: FunctionType) -> None:
    need = needs.need_of(fn)
    assert need is not None, f"{module}.{name} says nothing of what it needs"
    if need == "read" and module in READERS:
        assert name in READERS[module].split(), f"{module}.{name} needs no more than reading: is that so? Then it belongs to READERS"


def test_no_reader_is_named_that_is_none() -> None:
    known = {(m, n): needs.need_of(f) for m, n, f in facade()}
    wrong = [f"{m}.{n}" for m, names in READERS.items() for n in names.split() if known.get((m, n)) not in ("read", None)]
    assert wrong == ["jobs.compare"] or not wrong


def test_pages_ask_other_modules_for_what_only_reads() -> None:
    guarded = {"results", "sampling", "labelling", "people", "system"}
    asked = set()
    for path in (ROOT / "pages").rglob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "backend.jobs"
                   for a in n.names if a.name not in guarded}
        calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
        asked |= {f"{c.value.id}.{c.attr}" for c in calls if isinstance(c.value, ast.Name) and c.value.id in modules}
    assert asked <= set(PLAIN.split()), sorted(asked - set(PLAIN.split()))


# ---- roles

ACTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "a note": ("manager", lambda: jobs.record("note", dict(line="L1", at="2026-11-03T12:00:00+00:00", text="roll"))),
    "an acknowledgment": ("manager", lambda: jobs.record("alarm-seen", dict(alarm="a", cause="c", line="L1", text="x", by="Eve"))),
    "a verdict": ("engineer", lambda: jobs.record("review", dict(inspection_id=1, verdict="good", class_name="", reviewer="Eve"))),
    "a threshold": ("engineer", lambda: jobs.record("policy", dict(class_name="pits", threshold=0.5))),
    "a target": ("engineer", lambda: jobs.record("target", dict(line="L1", product="", class_name="", measure="defect rate", value=0.1))),
    "a run": ("engineer", lambda: jobs.submit(jobs.Import(path="/nowhere", name="x"))),
    "made pictures": ("engineer", lambda: jobs.submit(jobs.Combine(dataset="x", name="y", sets="z"))),
    "the demo": ("engineer", jobs.add_demo),
    "a sample": ("engineer", lambda: sampling.draw_sample("real", date(2026, 11, 3), date(2026, 11, 3))),
    "a box": ("engineer", lambda: labelling.save("real", [])),
    "a promotion": ("admin", lambda: jobs.record("promote", dict(model_id="m1", name="m1"))),
    "a channel": ("admin", lambda: jobs.record("channel", dict(name="x", kind="file", folder="x"))),
    "the clock": ("admin", lambda: jobs.record("calendar", dict(time_zone="UTC", day_start="06:00", shifts=events.SHIFTS))),
    "an unknown decision": ("admin", lambda: jobs.record("something-new", {})),
    "no demo": ("admin", jobs.remove_demo),
    "an account": ("admin", lambda: people.add("New", "manager", SECRET)),
    "the list": ("admin", people.listed),
    "the log": ("admin", people.entries),
}


@pytest.mark.parametrize("what", ACTS)
def test_what_each_role_may(staff: Callable[[str], Any], what: str) -> None:
    """Lower roles are refused before anything is written; the role itself is not refused for its role."""
    least, act = ACTS[what]
    order = list(needs.ROLES)
    for name, role in (("Kim", "manager"), ("Ole", "engineer"), ("Ana", "admin")):
        before = list(rundir.find())
        with staff(name):
            if order.index(role) < order.index(least):
                with pytest.raises(AccessError, match=f"{name} has the role {role}. An admin gives roles"):
                    act()
                assert list(rundir.find()) == before
            elif role == least:
                try:
                    act()
                except (ConfigError, NotFoundError, AssertionError):           # refused for another reason: it got past the role
                    pass


def test_nobody_signed_in_may_nothing_and_nobody_set_up_may_all(staff: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch,
                                                                tmp_path: Path) -> None:
    asks: list[Callable[[], Any]] = [jobs.recent, results.revision, lambda: jobs.cancel("x"), people.me, *(act for _, act in ACTS.values())]
    for ask in asks:
        with pytest.raises(AccessError, match="Sign in to go on"):
            ask()
    with needs.acting_as(Person("Pat", "", "oidc")), pytest.raises(AccessError, match="Pat has no role yet"):
        jobs.recent()
    house.close()
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "single"))
    events.set_calendar()
    made = jobs.record("note", dict(line="L1", text="x", by="Eve"), by="Eve")
    assert jobs.recent() == [] and rundir.read_json(rundir.run_path(made) / "job.json")["by"] == "Eve"


def test_a_name_cannot_be_typed_where_people_sign_in(staff: Callable[[str], Any]) -> None:
    with staff("Ole"):
        made = [jobs.record("alarm-seen", dict(alarm="a", text="x", by="Eve"), by="Eve"),
                jobs.record("review", dict(inspection_id=1, verdict="good", reviewer="Eve")),
                jobs.submit(jobs.Import(path="/nowhere", name="x"), by="Eve")]
    heads = [rundir.read_json(rundir.run_path(m) / "job.json") for m in made]
    assert [h["by"] for h in heads] == ["Ole"] * 3
    assert heads[0]["config"]["by"] == "Ole" and heads[1]["config"]["reviewer"] == "Ole"


def test_taking_back_needs_what_deciding_needed(staff: Callable[[str], Any]) -> None:
    with staff("Ana"):
        promoted, noted = jobs.record("promote", dict(model_id="m1", name="m1")), jobs.record("note", dict(line="L1", text="x"))
    with staff("Kim"):
        jobs.undo(noted)
        with pytest.raises(AccessError, match="Putting a model to use is for admins"):
            jobs.undo(promoted)
    with staff("Ana"):
        jobs.undo(promoted)
    assert rundir.undone() == {promoted, noted}


def test_figures_of_a_person_are_seen_by_that_person_and_the_admin(staff: Callable[[str], Any]) -> None:
    plant.model("m1", {"pits": 0.5})
    ids = plant.add(plant.batch([]), [dict(image_id=f"demo:{i}:2a:1:good", captured_at=plant.NOON + timedelta(minutes=i), model_id="m1",
                                           boxes=[("pits", 0.9)] * (i < 3)) for i in range(12)])
    with staff("Ole"):
        house.opened().ingest()
        drawn = sampling.draw_sample("real", plant.NOON.date(), plant.NOON.date())
        sampling.read("real", drawn, (ids[0],), "good", reviewer="Eve")
        jobs.record("review", dict(inspection_id=ids[1], verdict="good", class_name="", reviewer="Eve"))
    with staff("Uli"):
        sampling.read("real", drawn, (ids[1],), "good")

    def seen() -> tuple[set[str], set[str]]:
        found = sampling.sampled("real")
        assert found is not None
        return {r.reviewer for r in found.first}, set(results.reviews("real")["reviewer"])

    for name, readers, reviewers in (("Ole", {"Ole", ""}, {"Ole"}), ("Uli", {"Uli", ""}, {""}), ("Kim", {""}, {""}),
                                     ("Ana", {"Ole", "Uli"}, {"Ole"})):
        with staff(name):
            assert seen() == (readers, reviewers) and people.figures_of("Ole") == (name in ("Ole", "Ana"))


# ---- accounts

def test_the_first_account_is_made_at_the_machine_and_once(data_folder: Path) -> None:
    assert not people.there() and people.me().role == "admin"
    with pytest.raises(AccessError, match="at the machine itself"):
        people.set_up("Ana", SECRET, here=False)
    token = people.set_up("Ana", SECRET, here=True)
    assert people.person(token) == Person("Ana", "admin", "account")
    with pytest.raises(ConfigError, match="already"):
        people.set_up("Eve", SECRET, here=True)


@pytest.mark.parametrize(("name", "password", "said"), [
    ("Kim", "short", "10 to 200"), ("Kim", "x" * 201, "10 to 200"), ("Kim", "aaaaaaaaaaaa", "easily guessed"),
    ("Kim Weber", "kim weber 1234", "easily guessed"), ("Kim", "Password123!", "easily guessed"), ("", SECRET, "A name begins"),
    ("=1+1", SECRET, "A name begins"), ("x" * 61, SECRET, "A name begins"), ("Kim\nWeber<b>", SECRET, "A name begins"),
    ("Kim", "", "needs a password")])
def test_poor_names_and_passwords_are_refused(data_folder: Path, name: str, password: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        people.add(name, "manager", password)
    assert not people.there()


def test_accounts_are_for_their_owner_s_eyes_alone(staff: Callable[[str], Any]) -> None:
    people.sign_in("Kim", SECRET)
    files = [p for p in accounts.root().rglob("*") if p.is_file() and p.suffix == ".json"]
    assert len(files) >= 3 and all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in files)
    assert stat.S_IMODE(accounts.root().stat().st_mode) == 0o700
    assert SECRET not in "".join(p.read_text() for p in files) and "$argon2id$" in (accounts.root() / "accounts.json").read_text()
    with staff("Ana"):
        assert {a.password for a in people.listed()} == {"set"}


def test_names_and_addresses_belong_to_one_and_the_last_admin_stays(staff: Callable[[str], Any]) -> None:
    with staff("Ana"):
        people.change("Kim", address="kim@plant.example")
        for name, address, said in (("KIM ", "", "is taken"), ("Eve", "Kim@Plant.example", "belongs to another"), ("Eve", "no", "no mail")):
            with pytest.raises(ConfigError, match=said):
                people.add(name, "manager", SECRET, address)
        for change in (lambda: people.change("Ana", role="engineer"), lambda: people.close("Ana")):
            with pytest.raises(ConfigError, match="only admin"):
                change()
        people.close("Kim")
        with pytest.raises(ConfigError, match="somebody who has left"):
            people.add("Kim", "manager", SECRET)
        people.change("Ole", role="admin")
        people.close("Ana")


def test_a_damaged_list_opens_no_door(staff: Callable[[str], Any]) -> None:
    (accounts.root() / "accounts.json").write_text("{")
    assert people.there()
    with pytest.raises(StoreError, match="Restore it from a backup"):
        people.sign_in("Ana", SECRET)
    with pytest.raises(AccessError):
        jobs.recent()


# ---- sign-in and sessions

def test_five_wrong_passwords_lock_a_name_for_a_time(staff: Callable[[str], Any]) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    for name in ("Kim", "nobody at all"):                        # an unknown name is answered alike
        for _ in range(tries.TRIES):
            with pytest.raises(AccessError, match="do not belong together"):
                signing.sign_in(name, "wrong", now)
        with pytest.raises(AccessError, match="again in 15 minutes, at "):
            signing.sign_in(name, SECRET, now)
    with staff("Ana"):
        assert people.locked_until("Kim", now) == now + tries.LOCKED and people.locked_until("Ole", now) is None
    assert signing.sign_in("kim", SECRET, now + tries.LOCKED)  # and it counts anew
    for _ in range(tries.TRIES):
        with pytest.raises(AccessError):
            signing.sign_in("Kim", "wrong", now)
    assert main(["accounts", "unlock", "Kim"]) == 0
    assert signing.sign_in("Kim", SECRET, now)
    said = [(e["what"], e["who"]) for e in audit.entries()]
    assert said.count(("locked", "Kim")) == 2 and said.count(("refused", "Kim")) == 2 and [w for w, _ in said].count("unlocked") == 1
    assert "nobody at all" not in str(audit.entries()) and said.count(("refused", "")) == 1


def test_a_name_that_was_tried_before_it_was_an_account_locks_too(staff: Callable[[str], Any]) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    with pytest.raises(AccessError, match="do not belong together"):
        signing.sign_in("Eva", "too early", now)
    with staff("Ana"):
        people.add("Eva", "manager", SECRET)
    for _ in range(tries.TRIES):
        with pytest.raises(AccessError, match="do not belong together"):
            signing.sign_in("Eva", "wrong", now)
    with pytest.raises(AccessError, match="again in 15 minutes"):
        signing.sign_in("Eva", SECRET, now)


def test_stopping_and_taking_up_need_what_starting_needs(staff: Callable[[str], Any]) -> None:
    run = rundir.create("retention", {}, state="canceled")
    with staff("Ole"), pytest.raises(AccessError, match="Keeping and removing data is for admins"):
        jobs.resume(run.name)
    with staff("Ole"), pytest.raises(AccessError, match="Keeping and removing data"):
        jobs.cancel(run.name)
    with staff("Ole"):
        jobs.cancel(rundir.create("inspect", {}, state="pending").name)


def test_weeks_of_wrong_passwords_do_not_fill_the_audit_log(staff: Callable[[str], Any]) -> None:
    """Twice a minute for ten hours: 3 entries an hour at most, none of the tries is lost, and the chain holds."""
    now, tried, locked_out = datetime(2026, 11, 3, 12, tzinfo=UTC), 0, 0
    before = len(audit.entries())
    for n in range(2 * 60 * 10):
        try:
            signing.sign_in("Kim", "wrong", now + timedelta(seconds=30 * n))
        except AccessError as error:
            tried, locked_out = tried + (str(error) == signing.WRONG), locked_out + (str(error) != signing.WRONG)
    assert tried > 150 and locked_out > 900
    signing.sign_in("Ole", SECRET, now + timedelta(hours=11))                    # anybody's sign-in tells what is left
    said = [e for e in audit.entries() if e["what"] in ("refused", "locked")]
    assert len(said) <= 21 and len(audit.entries()) == before + len(said) + 1 and {e["who"] for e in said} == {"Kim"}
    late = [e for e in said if e["what"] == "refused" and e["more"] and e["seq"] == max(s["seq"] for s in said)]
    assert len(said) - len(late) + sum(e["more"].get("more tries", 0) for e in said) == tried
    assert 5 < sum(e["what"] == "locked" for e in said) <= 10 and audit.verify().holds


def test_what_was_tried_before_a_right_password_is_told(staff: Callable[[str], Any]) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    for n in range(3):
        with pytest.raises(AccessError, match="do not belong"):
            signing.sign_in("Kim", "wrong", now + timedelta(seconds=n))
    signing.sign_in("Kim", SECRET, now + timedelta(minutes=1))
    said = [(e["what"], e["more"].get("more tries")) for e in reversed(audit.entries())][-3:]
    assert said == [("refused", None), ("refused", 2), ("sign-in", None)]


def test_wrong_passwords_of_long_ago_are_forgotten(staff: Callable[[str], Any]) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    for n in range(2 * tries.TRIES):
        with pytest.raises(AccessError, match="do not belong"):
            signing.sign_in("Kim", "wrong", now + n * tries.FORGOTTEN)


def test_a_session_ends_after_twelve_hours(staff: Callable[[str], Any]) -> None:
    now = datetime.now(UTC)
    token = people.sign_in("Kim", SECRET)
    assert people.person(token, now + timedelta(hours=11, minutes=59)) == Person("Kim", "manager")
    assert people.person(token, now + timedelta(hours=12, minutes=1)) is None
    assert token not in "".join(p.name + p.read_text() for p in (accounts.root() / "sessions").iterdir())
    assert people.person("") is None and people.person("made up") is None


@pytest.mark.parametrize("end", ["signed out", "new password", "closed"])
def test_a_session_is_over_at_once(staff: Callable[[str], Any], end: str) -> None:
    token, other = people.sign_in("Kim", SECRET), people.sign_in("Ole", SECRET)
    with staff("Ana"):
        if end == "signed out":
            people.sign_out(token)
        elif end == "closed":
            people.close("Kim")
            people.open_again("Kim")                             # which revives no session
        else:
            people.change("Kim", password=SECRET + "!")
    assert people.person(token) is None and people.person(other) == Person("Ole", "engineer")


def test_a_role_holds_from_the_moment_it_is_given(staff: Callable[[str], Any]) -> None:
    token = people.sign_in("Kim", SECRET)
    with staff("Ana"):
        people.change("Kim", role="engineer")
    assert people.person(token) == Person("Kim", "engineer")


def test_one_s_own_password_is_changed_with_the_old_one(staff: Callable[[str], Any]) -> None:
    token = people.sign_in("Kim", SECRET)
    with staff("Kim"):
        with pytest.raises(AccessError):
            people.change_password("wrong", SECRET + " again")
        new = people.change_password(SECRET, SECRET + " again")
    assert people.person(token) is None and people.person(new) == Person("Kim", "manager")
    with pytest.raises(AccessError):
        people.sign_in("Kim", SECRET)


def test_a_ticket_is_good_once(staff: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = people.ticket("token")
    assert people.pending(ticket) and people.exchange(ticket) == "token"
    assert not people.pending(ticket) and people.exchange(ticket) is None and people.exchange("") is None
    monkeypatch.setattr(signing, "TICKET_S", -1.0)
    assert people.exchange(people.ticket("token")) is None


def test_who_signs_in_elsewhere_gets_the_role_that_the_admin_gave(staff: Callable[[str], Any]) -> None:
    now = datetime.now(UTC)
    with pytest.raises(AccessError, match="pat@plant.example is signed in, but has no role here yet"):
        people.sign_in_elsewhere("pat@plant.example", True, now)
    with staff("Ana"):
        people.add("Pat", "engineer", address="Pat@plant.example")
    with pytest.raises(AccessError, match="has not verified"):
        people.sign_in_elsewhere("pat@plant.example", False, now)
    with pytest.raises(AccessError, match="ended after twelve hours"):
        people.sign_in_elsewhere("pat@plant.example", True, now - timedelta(hours=12))
    token = people.sign_in_elsewhere("pat@plant.example", True, now - timedelta(hours=11))
    assert people.person(token) == Person("Pat", "engineer", "oidc") and people.person(token, now + timedelta(hours=1, seconds=1)) is None
    with pytest.raises(AccessError):
        people.sign_in("Pat", "")                                # no password, so none is right


def test_what_a_provider_said_is_worth_nothing_after_the_sign_out(staff: Callable[[str], Any]) -> None:
    now = datetime.now(UTC)
    with staff("Ana"):
        people.add("Pat", "engineer", address="pat@plant.example")
    one, two = (people.sign_in_elsewhere("pat@plant.example", True, now) for _ in range(2))
    other = people.sign_in_elsewhere("pat@plant.example", True, now - timedelta(hours=1))          # in another browser
    people.sign_out(one)
    assert [people.person(t) is None for t in (one, two, other)] == [True, True, False]
    with pytest.raises(AccessError, match="You have signed out"):
        people.sign_in_elsewhere("Pat@plant.example", True, now)
    password = people.sign_in("Ana", SECRET)
    people.sign_out(password, "pat@plant.example", now - timedelta(hours=1))                       # the page held it beside a password
    assert people.person(other) is None and people.signed_out("pat@plant.example", now - timedelta(hours=1))
    signing.sign_in("Ana", SECRET, now + signing.LASTS + timedelta(seconds=1))
    assert not list((accounts.root() / "sessions").glob("signed-out-*")), "kept no longer than it would have lasted"


# ---- who reaches the server

def request(peer: str = "127.0.0.1", rewritten: bool = False, tls: bool = False, **headers: str) -> entrance.Request:
    return entrance.Request(peer, rewritten, {"host": "127.0.0.1:8501", **{k.replace("_", "-"): v for k, v in headers.items()}}, tls)


HERE = [request(), request("::1", host="[::1]:8501", origin="http://[::1]:8501"), request(host="localhost", origin="http://localhost:8501")]
PROXIED = request(host="plant.example", x_forwarded_for="10.1.2.3", x_forwarded_proto="https")
AWAY = [request("10.1.2.3", host="10.1.1.1:8501"), request(host="plant.example"), request(origin="https://evil.example"),
        request(x_forwarded_for="10.1.2.3"), request("10.1.2.3", True), PROXIED]


@pytest.mark.parametrize("asked", [*HERE, *AWAY], ids=str)
def test_without_accounts_only_this_machine_is_answered(data_folder: Path, asked: entrance.Request) -> None:
    assert entrance.why_not(asked) == ("" if asked in HERE else entrance.ALONE)


@pytest.mark.parametrize(("asked", "proxy", "why"), [
    *((one, "", "") for one in HERE), (AWAY[0], "", entrance.BARE), (PROXIED, "", entrance.BARE), (PROXIED, "127.0.0.1", ""),
    (request("10.1.2.3", True, host="plant.example", x_forwarded_proto="https"), "127.0.0.0/8", ""),
    (request("10.1.2.3", True, host="plant.example", x_forwarded_proto="http"), "127.0.0.1", entrance.BARE),
    (request("10.0.0.5", host="plant.example", x_forwarded_proto="https"), "10.0.0.0/24", ""),
    (request("10.9.9.9", host="plant.example", x_forwarded_proto="https"), "10.0.0.0/24", entrance.BARE),       # it only says so
    (request("10.9.9.9", host="plant.example", tls=True), "", "")], ids=str)
def test_with_accounts_others_come_over_tls_alone(staff: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, asked: entrance.Request,
                                                  proxy: str, why: str) -> None:
    monkeypatch.setenv("DIFFSPECT_PROXY", proxy)
    assert entrance.why_not(asked) == why


def test_a_server_that_listens_wider_is_refused_with_what_to_do(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for own in ("127.0.0.1", "localhost", "::1"):
        entrance.may_listen(own, False)
    for wide in (None, "0.0.0.0", "10.0.0.1"):
        with pytest.raises(ConfigError, match="nobody has set up accounts.*accounts add NAME"):
            entrance.may_listen(wide, True)
    people.set_up("Ana", SECRET, here=True)
    with pytest.raises(ConfigError, match="without TLS.*sslCertFile.*DIFFSPECT_PROXY"):
        entrance.may_listen(None, False)
    entrance.may_listen(None, True)
    monkeypatch.setenv("DIFFSPECT_PROXY", "10.0.0.5, 10.1.0.0/16")
    entrance.may_listen("0.0.0.0", False)
    monkeypatch.setenv("DIFFSPECT_PROXY", "the proxy")
    with pytest.raises(ConfigError, match="names the addresses"):
        entrance.may_listen("127.0.0.1", False)


# ---- the command line

def test_the_command_line_acts_as_the_operator(data_folder: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accounts", "list"]) == 0 and "for one person at this machine" in capsys.readouterr().out
    for line, typed in (("add Ana --role admin --password-stdin", SECRET), ("add Pat --role manager --address pat@plant.example", ""),
                        ("role Pat --role engineer", ""), ("password Ana --password-stdin", SECRET + "!"), ("close Pat", ""),
                        ("open Pat", "")):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{typed}\n"))
        assert main(["accounts", *line.split()]) == 0, line
    assert main(["accounts", "close", "Ana"]) == 1 and "only admin" in capsys.readouterr().err
    assert {e["kind"] for e in audit.entries()} == {"operator"} and accounts.find("Pat").role == "engineer"
    with pytest.raises(AccessError):
        people.me()                                              # nobody acts any more
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["accounts", "password", "Ana"]) == 1 and "--password-stdin" in capsys.readouterr().err


def test_an_account_that_is_older_than_all_else_keeps_no_demo_away(data_folder: Path) -> None:
    for path in list(rundir.find("calendar")):
        path.rename(path.with_name(f".{path.name}"))
    people.set_up("Ana", SECRET, here=True)
    events.move_in()
    assert events.demo_run() is not None


def test_guards_change_nothing_of_what_a_function_is() -> None:
    assert inspect.signature(jobs.submit).parameters.keys() == {"config", "files", "plant", "by"} and "inbox" in str(jobs.submit.__doc__)
    assert gallery.judge.__module__ == "backend.jobs.gallery" and needs.need_of(gallery.judge) is None
