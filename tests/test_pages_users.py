"""Users, the sign-in before every page, and what each role finds put out of reach. Pages run inside the frame, driven as a person would."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import argon2
import pytest
import streamlit as st
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.jobs import accounts, audit, house, needs, people, tries
from pages.components import person
from pages.components import sign_in as door
from tests import small_plant as plant
from tests.test_pages_plant import words

ROOT = Path(__file__).resolve().parents[1]
SECRET = "the roll was changed at noon"
OPERATOR = needs.Person("root (command line)", "admin", "operator")


@pytest.fixture
def folder(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(accounts, "hasher", lambda: cheap)
    st.cache_data.clear()
    begin = PagesManager.__init__

    def begun(self: PagesManager, *args: Any, **kwargs: Any) -> None:
        """AppTest forgets at each run that the frame names the pages, and runs a page alone; the server does not, see pages.components."""
        PagesManager.uses_pages_directory = False
        begin(self, *args, **kwargs)

    monkeypatch.setattr(PagesManager, "__init__", begun)
    yield data_folder
    house.close()


@pytest.fixture
def staffed(folder: Path) -> Callable[..., AppTest]:
    """A plant with pictures and three people; gives a page that somebody signed in to by hand."""
    plant.model("m1", {"pits": 0.5})
    plant.add(plant.batch([]), [dict(image_id=f"demo:{i}:2a:1:good", captured_at=datetime.now(UTC) - timedelta(hours=2, minutes=i),
                                     model_id="m1", boxes=[("pits", 0.9 if i else 0.45)] * (i < 3)) for i in range(20)])
    with needs.acting_as(OPERATOR):
        for name, role in (("Ana", "admin"), ("Kim", "manager"), ("Ole", "engineer")):
            people.add(name, role, SECRET)
        house.opened().ingest()
    return signed_in


def opened(name: str = "", **query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "frame.py"), default_timeout=60)
    return visit(at, name, **query) if name else at.run()


def visit(at: AppTest, name: str, **query: str) -> AppTest:
    at.switch_page(f"pages/{name}.py")
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception, at.exception
    return at


def sign_in(at: AppTest, name: str, password: str = SECRET) -> AppTest:
    at.text_input(key="sign_in_name").set_value(name)
    at.text_input(key="sign_in_password").set_value(password)
    at.button[0].click().run()
    assert not at.exception, at.exception
    return at


def signed_in(name: str, page: str, **query: str) -> AppTest:
    return visit(sign_in(opened(), name), page, **query)


def press(at: AppTest, label: str) -> AppTest:
    next(b for b in at.button if b.label == label).click().run()
    assert not at.exception, at.exception
    return at


def test_without_accounts_all_is_open_and_said_to_be(folder: Path) -> None:
    at = opened("users")
    assert "For one person, at this machine only" in words(at) and "Set up the first account" in words(at)
    for key, value in (("first_name", "Ana"), ("first_password", SECRET), ("first_again", "another sentence")):
        at.text_input(key=key).set_value(value)
    press(at, "Set up and sign in")
    assert "The two passwords differ" in words(at) and not people.there()
    at.text_input(key="first_again").set_value(SECRET)
    press(at, "Set up and sign in")
    assert people.there() and at.title[0].value == "Users" and "Choose somebody" in words(at)
    assert at.session_state[person.TOKEN] and people.pending(at.session_state["session_ticket"])        # for the browser's cookie
    other = opened("overview")
    assert "##### Sign in" in words(other) and other.title[0].value == "Diffspect"


def test_no_page_is_shown_before_the_sign_in(staffed: Callable[..., AppTest]) -> None:
    for name in ("overview", "trends", "models", "users"):
        assert [t.value for t in opened(name).title] == ["Diffspect"], name
    at = opened()
    for n in range(tries.TRIES):
        sign_in(at, "Kim", "wrong")
        assert "do not belong together" in words(at), n
    assert "can sign in again in 15 minutes" in words(sign_in(at, "Kim"))
    assert [t.value for t in at.title] == ["Diffspect"]


def test_a_manager_reads_and_acknowledges_in_the_own_name(staffed: Callable[..., AppTest]) -> None:
    at = staffed("Kim", "overview")
    assert at.title[0].value == "Overview" and not at.error
    for name, title in (("models", "Models"), ("runs", "Runs"), ("review", "Review"), ("training", "Training")):
        assert visit(at, name).title[0].value == title and "is for engineers and admins; Kim has the role manager" in words(at), name
    visit(at, "alarms", alarms_view="Rules and targets")
    assert "Changing thresholds, charts, targets and rules is for engineers and admins" in words(at)
    assert not [b for b in at.button if b.label == "Save"]
    at.segmented_control(key="alarms_view").set_value("Messages").run()
    assert "is for admins; Kim has the role manager" in words(at)
    visit(at, "trends", period="All")
    at.text_area[0].set_value("Roll 3 changed")
    assert not [t for t in at.text_input if t.label == "Your name"] and "As Kim" in words(at)
    press(at, "Save")
    made = next(rundir.find("note"))
    assert rundir.read_json(made / "job.json")["config"]["by"] == "Kim"
    assert visit(at, "users").title[0].value == "My account" and "Role: **manager**" in words(at) and not at.dataframe


def test_an_engineer_runs_and_does_not_promote(staffed: Callable[..., AppTest]) -> None:
    with needs.acting_as(OPERATOR):
        jobs.record("promote", dict(model_id=rundir.promoted_model(), name="The same once more", kind="detector"))
    at = staffed("Ole", "models")
    at.button(key="ask_roll_back").click().run()
    assert at.button(key="roll_back_yes").disabled and "Putting a model to use is for admins" in words(at)
    assert visit(at, "runs").title[0].value == "Runs" and "lock" not in words(at)


def test_the_admin_looks_after_users_and_reads_the_log(staffed: Callable[..., AppTest]) -> None:
    at = staffed("Ana", "users")
    assert at.dataframe[0].value["Name"].tolist() == ["Ana", "Kim", "Ole"]
    for key, value in (("new_name", "Uli"), ("new_password", SECRET)):
        at.text_input(key=key).set_value(value)
    at.selectbox(key="new_role").set_value("engineer")
    press(at, "Add")
    assert "Uli can sign in now" in " ".join(e.value for e in at.success) and accounts.find("Uli").role == "engineer"
    at.text_input(key="new_name").set_value("KIM")
    at.text_input(key="new_password").set_value(SECRET)
    press(at, "Add")
    assert "is taken" in words(at)
    at.segmented_control(key="users_view").set_value("Audit log").run()
    at.button(key="audit_verify").click().run()
    assert "It holds" in " ".join(e.value for e in at.success)
    assert at.dataframe[0].value["What"].tolist()[0] == "Account made" and at.dataframe[0].value["On"].tolist()[0] == "Uli"
    at.selectbox(key="audit_what").set_value("sign-in").run()
    assert set(at.dataframe[0].value["What"]) == {"Signed in"} and at.dataframe[0].value["Who"].tolist() == ["Ana"]
    at.selectbox(key="audit_what").set_value("").run()
    newest = next(rundir.find(audit.RECIPE))
    job = rundir.read_json(newest / "job.json")
    job["config"]["on"] = "Eve"
    rundir.write_json(newest / "job.json", job)
    at.button(key="audit_verify").click().run()
    assert "It does not hold" in words(at) and "changed after it was written" in words(at)


def test_an_own_password_is_changed_and_the_way_out_ends_the_session(staffed: Callable[..., AppTest]) -> None:
    at = staffed("Kim", "users")
    for key, value in (("password_old", SECRET), ("password_new", SECRET + " again"), ("password_again", SECRET + " again")):
        at.text_input(key=key).set_value(value)
    press(at, "Change it")
    assert "Your password is changed" in " ".join(e.value for e in at.success)
    token = at.session_state[person.TOKEN]
    assert people.person(token) is not None
    at.button(key="sign_out").click().run()
    assert people.person(token) is None and at.title[0].value == "Diffspect"
    sign_in(at, "Kim", SECRET + " again")
    assert at.title[0].value != "Diffspect"


def test_a_session_that_ends_ends_the_page(staffed: Callable[..., AppTest]) -> None:
    at = staffed("Kim", "overview")
    with needs.acting_as(OPERATOR):
        people.close("Kim")
    assert at.run().title[0].value == "Diffspect"


def test_out_in_one_tab_is_out_in_all_with_a_sign_in_provider_too(staffed: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tab keeps what the provider said when it connected, and has begun a session of its own from it."""
    with needs.acting_as(OPERATOR):
        people.add("Pat", "manager", address="pat@plant.example")
    monkeypatch.setattr(door, "configured", lambda: True)
    said = dict(is_logged_in=True, email="pat@plant.example", email_verified=True, iat=int(datetime.now(UTC).timestamp()) - 60)
    tabs = [AppTest.from_file(str(ROOT / "frame.py"), default_timeout=60) for _ in range(2)]
    for tab in tabs:
        tab.user = dict(said)
        visit(tab, "users")
        assert "Role: **manager**" in words(tab) and "with your company's account" in words(tab)
    here, other = tabs
    here.button(key="sign_out").click().run()
    for tab in (here, other.run(), other.run()):
        assert not tab.exception and tab.title[0].value == "Diffspect" and tab.button(key="sign_in_oidc")
    other.user |= dict(iat=said["iat"] + 30)                           # through the provider once more
    assert other.run().title[0].value == "My account"


def test_names_on_review_are_those_of_oneself(staffed: Callable[..., AppTest]) -> None:
    at = staffed("Ole", "review")
    assert "As Ole" in words(at) and not [t for t in at.text_input if t.key == "reviewer"]
    at.button(key="say_good").click().run()
    assert not at.exception
    made = rundir.read_json(next(rundir.find("review")) / "job.json")
    assert (made["by"], made["config"]["reviewer"]) == ("Ole", "Ole")


def test_what_is_made_when_it_is_clicked_is_made_in_the_name_of_whoever_it_was_offered_to(staffed: Callable[..., AppTest]) -> None:
    """Streamlit makes a download in a thread of its own, where no session is."""
    token = people.sign_in("Ole", SECRET)
    before = person._kept.set(token)
    offered = person.keeping(lambda: jobs.people.me().name)
    person._kept.reset(before)
    with pytest.raises(jobs.AccessError):
        jobs.people.me()
    assert offered() == "Ole"
    people.sign_out(token)
    with pytest.raises(jobs.AccessError):
        offered()


def test_whoever_comes_next_in_the_same_tab_finds_nothing_of_the_one_before(staffed: Callable[..., AppTest]) -> None:
    at = opened("review")
    sign_in(at, "Kim")
    at.session_state["last_answer"], at.session_state["label_skipped"] = dict(text="Kim's", made="x"), ["a"]
    at.session_state[person.TOKEN] = ""
    at.run()
    sign_in(at, "Kim")
    assert at.session_state["label_skipped"] == ["a"], "the same person goes on"
    at.session_state[person.TOKEN] = ""
    at.run()
    sign_in(at, "Ole")
    assert "label_skipped" not in at.session_state and "last_answer" not in at.session_state
