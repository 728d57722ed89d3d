"""Whom this machine calls: nobody but hosts that its admin allowed, and none of the addresses where keys are given away."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from backend import rundir
from backend.errors import ConfigError, ResourceError
from backend.jobs import channels, delivery, events, outbound
from backend.jobs.channels import Channel
from tests.mail_and_hook import hook

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def allow(folder: Path, *hosts: str) -> None:
    (folder / outbound.FILE).write_text("# who may be called\n" + "\n".join(f"{h}   # a remark" for h in hosts))


def test_nobody_is_called_by_itself(folder: Path) -> None:
    for wrong in (Channel("Chat", url="https://chat.plant.example/x"), Channel("M", "mail", server="relay", sender="a@b", to=["a@b"])):
        with pytest.raises(ConfigError, match=f"{wrong.calls} is not among the hosts .* outbound.txt of the data folder."):
            channels.of_app(wrong)
    channels.of_app(Channel("MES", "file", folder="mes"))
    allow(folder, "*.plant.example", "relay")
    assert channels.of_app(Channel("Chat", url="https://chat.plant.example/x")).calls == "chat.plant.example"


@pytest.mark.parametrize(("rule", "hosts", "others"), [
    ("chat.example", ["chat.example", "CHAT.example.", "chat.example"], ["xchat.example", "chat.example.evil", "", "example"]),
    ("*.example", ["a.example", "a.b.example"], ["example", "aexample", "a.example.evil"]),
    ("10.20.0.0/16", ["10.20.3.4", "::ffff:10.20.3.4"], ["10.21.0.1", "10.20.0.1.nip.example", "169941508", "0x0a140001"]),
    ("[::1]", ["::1", "[::1]"], ["::2", "127.0.0.1"]), ("nonsense//", ["nonsense//"], ["nonsense"])])
def test_a_line_allows_a_host_those_below_it_or_a_network(folder: Path, rule: str, hosts: list[str], others: list[str]) -> None:
    allow(folder, rule)
    assert [h for h in hosts if not outbound.listed(h)] == [] and [h for h in others if outbound.listed(h)] == []


def test_hosts_of_alerts_toml_are_allowed_by_that(folder: Path) -> None:
    (folder / "alerts.toml").write_text('[[channel]]\nurl = "https://chat.example/{TOKEN}"\n[[channel]]\nserver = "relay.example"\n'
                                        '[[channel]]\nurl = 3\n')
    assert outbound.listed("chat.example") and outbound.listed("relay.example") and not outbound.listed("other.example")
    (folder / "alerts.toml").write_text("channel = 7")
    assert not outbound.listed("chat.example")


@pytest.mark.parametrize("place", ["169.254.169.254", "127.0.0.1", "::1", "fe80::1%eth0", "0.0.0.0", "::ffff:169.254.169.254",
                                   "64:ff9b::a9fe:a9fe", "100.100.100.200", "fd00:ec2::254", "224.0.0.1"])
def test_a_name_that_leads_to_such_an_address_is_not_called(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """DNS is not ours: what was allowed by name may lead anywhere by now."""
    allow(folder, "chat.example")
    family = socket.AF_INET6 if ":" in place else socket.AF_INET
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", (place, 443))])
    with pytest.raises(ResourceError, match="chat.example leads to .*, which is never called unless that very address stands in"):
        outbound.connect(("chat.example", 443), 0.1)


def test_a_message_goes_to_a_listed_machine_and_stops_when_it_is_taken_off(folder: Path) -> None:
    with hook() as known:
        allow(folder, "127.0.0.1")
        events.record("channel", channels.of_app(Channel("Chat", url=known.url)).to_json())
        events.record("alert-test", dict(channel="Chat"))
        assert delivery.deliver() == 1 and len(known.got) == 1
        assert not any("image" in str(v) or "base64" in str(v) for v in known.got[0].values()), "words alone"
        allow(folder)
        events.record("alert-test", dict(channel="Chat"))
        assert delivery.deliver() == 0 and len(known.got) == 1
        said, = channels.passed_over()
        assert said.startswith("Nothing is sent to Chat: 127.0.0.1 is not among the hosts")
    allow(folder, "localhost")
    with hook() as known:
        events.record("channel", channels.of_app(Channel("Other", url=known.url.replace("127.0.0.1", "localhost"))).to_json())
        known.answers = [302]                                    # to /elsewhere
        events.record("alert-test", dict(channel="Other"))
        delivery.deliver()
        assert [g["path"] for g in known.got] == ["/hook"] and delivery.log()[0].said.startswith("The webhook answered 302"), \
            "no redirect is followed"


# ---- and by the libraries below us

LISTENING = '''
import sys
HOME = ("127.", "::1", "localhost", "0.0.0.0", "::")
def heard(event, args):
    """Names that are looked up and addresses that are called; a path is a socket of this machine."""
    place = args[0] if event in ("socket.getaddrinfo", "socket.gethostbyname") else args[1] if event == "socket.connect" else None
    host = place[0] if isinstance(place, tuple) else place
    if isinstance(host, bytes): host = host.decode()
    if event.startswith("socket.") and isinstance(place, (tuple, str, bytes)) and host and not str(host).startswith(HOME) \
            and not (event == "socket.connect" and isinstance(place, (str, bytes))):
        sys.stderr.write(f"FOREIGN {event} {host}\\n")
sys.addaudithook(heard)
'''
WORK = '''
import os, socket
from pathlib import Path
try: socket.create_connection(("198.51.100.1", 9), 0.01)       # the listener hears
except OSError: pass
sys.stderr.write("BEGINS\\n")
os.environ["DIFFSPECT_SUPERVISOR"] = os.environ["DIFFSPECT_MESSENGER"] = "off"
from tests import squares
from backend import __main__ as command, rundir
data = Path(os.environ["DIFFSPECT_DATA"]) / "squares"
squares.draw(data)
assert command.main(["import", str(data), "--name", "squares"]) == 0
assert command.main(["train-detector", "--dataset", "squares", "--name", "m", "--epochs", "1", "--imgsz", "64", "--json"]) == 0
assert command.main(["inspect", "--model", "m", "--images", str(data), "--line", "L"]) == 0
'''


@pytest.mark.slow
def test_an_import_a_training_and_an_inspection_ask_no_foreign_host(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LISTENING + WORK], cwd=ROOT, capture_output=True, text=True, timeout=280)
    heard, _, after = done.stderr.partition("BEGINS")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "FOREIGN socket.connect 198.51.100.1" in heard and "FOREIGN" not in after, after[-3000:]
    assert {rundir.recipe_of(p.name) for p in rundir.completed()} >= {"import", "train-detector", "inspect"}
