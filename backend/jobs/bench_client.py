"""One visitor of the dashboard without a browser: a WebSocket session of Streamlit's own, from which a page is asked for and timed.

Speaks just enough of Streamlit 1.67's protocol (protobuf) to ask for a run of a page's script, to drop files and press buttons on it, and
to know when all of it has arrived, and whether it failed. What a browser would do besides, paint and fetch pictures, is not in the time: it
is spent on another machine.
"""

import secrets
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from backend.errors import DiffspectError

# Numbers of protobuf fields: BackMsg.rerun_script and what is in it; what is in a ForwardMsg, and on the way to an exception or alert.
_RERUN, _QUERY, _WIDGETS, _HASH, _PAGE = 11, 1, 2, 3, 4
_DELTA, _FINISHED, _NAVIGATION, _SHOWN = 5, 6, 23, 4
_SESSION, _ASK_PLACES, _PLACES, _ADDRESS = (4, 1, 6), 16, 19, (12, 1)
_BUTTON, _UPLOADER, _PRESSED, _DROPPED = (3, 19), (3, 33), 2, 13               # in a delta; and what a widget's state is
_EXCEPTION, _ALERT, _SAID, _KIND = (3, 8), (3, 30), 1, 2
_WHOLE, _COMPILE_ERROR, _ERROR = 0, 1, 1       # how a run finished (others: it gave way to one still to come); the kind of st.error


@dataclass(frozen=True)
class Shown:
    """A page as it came: seconds until it was whole, and what was sent."""

    seconds: float
    messages: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        return b"".join(self.messages)

    @property
    def query(self) -> str:
        """What the page put into the browser's address; '' where nothing."""
        told = [find(message, *_ADDRESS) for message in self.messages]
        return str(next((q for q in reversed(told) if q), b""), "utf-8")

    def widgets(self, path: tuple[int, int]) -> list[tuple[str, str]]:
        """(id, label) of the buttons or uploaders on it."""
        found = (find(dict(fields(message)).get(_DELTA, b""), *path) for message in self.messages)
        return [(str(find(widget, 1), "utf-8"), str(find(widget, 2) or b"", "utf-8")) for widget in found if widget]


class Visitor:
    """A session. Not for several threads at once."""

    def __init__(self, port: int) -> None:
        self._home = f"http://127.0.0.1:{port}"
        self._socket = connect(f"ws://127.0.0.1:{port}/_stcore/stream", subprotocols=[Subprotocol("streamlit")], max_size=None,
                               open_timeout=60, ping_interval=None)
        self._page = self._hash = self._session = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def upload(self, page: str, files: list[tuple[str, bytes]], press: str) -> Shown:
        """Drop files on the first uploader of a page, then press the button whose label begins so; what came of it. Raises DiffspectError
        also where there is no such thing."""
        uploaders = self.ask(page).widgets(_UPLOADER)
        if not uploaders:
            raise DiffspectError(f"The page {page!r} takes no files.")
        places = zip(self._places(files), files, strict=True)
        dropped = b"".join(_message(2, self._put(place, name, data)) for place, (name, data) in places)
        shown = self.ask(page, widgets=_text(1, uploaders[0][0]) + _message(_DROPPED, dropped))
        button = next((name for name, label in shown.widgets(_BUTTON) if label.startswith(press)), "")
        if not button:
            raise DiffspectError(f"The page {page!r} has no button {press!r}.")
        return self.ask(page, widgets=_text(1, button) + _number(_PRESSED << 3) + _number(1))

    def _places(self, files: list[tuple[str, bytes]]) -> list[bytes]:
        """Where the server wants them, a FileURLs each."""
        names = b"".join(_text(2, name) for name, _ in files)
        self._socket.send(_message(_ASK_PLACES, _text(1, secrets.token_hex(8)) + names + _text(3, self._session)))
        while True:
            message = self._socket.recv(timeout=60)
            assert isinstance(message, bytes)
            if (told := find(message, _PLACES)) is not None:
                return [value for number, value in fields(told) if number == 2]

    def _put(self, place: bytes, name: str, data: bytes) -> bytes:
        """Send one file; the UploadedFileInfo that says so. Raises OSError."""
        with urllib.request.urlopen(f"{self._home}/_stcore/health", timeout=60) as answer:  # nosec B310 # our own server
            token = (answer.headers["Set-Cookie"] or "").partition(";")[0].partition("=")[2]
        border = secrets.token_hex(16)
        body = (f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
                f"Content-Type: application/octet-stream\r\n\r\n").encode() + data + f"\r\n--{border}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={border}", "X-Xsrftoken": token, "Cookie": f"_streamlit_xsrf={token}"}
        put = urllib.request.Request(urljoin(self._home, str(find(place, 2), "utf-8")), body, headers, method="PUT")
        with urllib.request.urlopen(put, timeout=60):  # nosec B310 # our own server
            return _text(2, name) + _number(3 << 3) + _number(len(data)) + _message(4, find(place, 1)) + _message(5, place)

    def ask(self, page: str, query: str = "", timeout: float = 120, widgets: bytes = b"") -> Shown:
        """Run a page with a query string, as a person would who opens it or changes something on it; `widgets`: the state of the one that
        was changed. Raises DiffspectError where the page fails, or says that something went wrong."""
        known = page == self._page and self._hash
        start = time.perf_counter()
        changed = _message(_WIDGETS, _message(1, widgets)) if widgets else b""
        self._socket.send(_message(_RERUN, _text(_QUERY, query) + changed + (_text(_HASH, self._hash) if known else _text(_PAGE, page))))
        content = []
        for message in iter(lambda: self._socket.recv(timeout=timeout), None):
            assert isinstance(message, bytes)
            content.append(message)
            told = dict(fields(message))
            self._session = str(find(message, *_SESSION) or b"", "utf-8") or self._session
            self._page, self._hash = page, str(find(told.get(_NAVIGATION, b""), _SHOWN) or b"", "utf-8") or self._hash
            _sound(page, told.get(_DELTA, b""))
            if told.get(_FINISHED) == _COMPILE_ERROR:
                raise DiffspectError(f"The page {page!r} cannot be read.")
            if told.get(_FINISHED) == _WHOLE:
                break
        return Shown(time.perf_counter() - start, tuple(content))


def _sound(page: str, delta: bytes) -> None:
    if find(delta, *_EXCEPTION) is not None:
        raise DiffspectError(f"The page {page!r} failed.")
    alert = find(delta, *_ALERT)
    if alert is not None and find(alert, _KIND) == _ERROR:
        raise DiffspectError(f"The page {page!r} says: {str(find(alert, _SAID) or b'', 'utf-8')}")


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protobuf message: int of a varint, bytes of all else."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        else:
            length, at = {1: (8, at), 5: (4, at)}.get(kind) or _varint(message, at)
            yield tag >> 3, message[at:at + length]
            at += length


def find(message: bytes, *path: int) -> Any:
    """What a message has along a path of fields; None where it ends."""
    value: Any = message
    for number in path:
        value = dict(fields(value)).get(number)
        if value is None:
            return None
    return value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _number(value >> 7)


def _message(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode()) if value else b""
