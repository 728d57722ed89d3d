"""One visitor of the dashboard without a browser: a WebSocket session of Streamlit's own, from which a page is asked for and timed.

Speaks just enough of Streamlit 1.67's protocol (protobuf) to ask for a run of a page's script and to know when all of it has arrived, and
whether it failed. What a browser would do besides, paint and fetch pictures, is not in the time: it is spent on another machine.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from backend.errors import DiffspectError

# Numbers of protobuf fields: BackMsg.rerun_script and what is in it; what is in a ForwardMsg, and on the way to an exception or alert.
_RERUN, _QUERY, _HASH, _PAGE = 11, 1, 3, 4
_DELTA, _FINISHED, _NAVIGATION, _SHOWN = 5, 6, 23, 4
_EXCEPTION, _ALERT, _SAID, _KIND = (3, 8), (3, 30), 1, 2
_WHOLE, _COMPILE_ERROR, _ERROR = 0, 1, 1       # how a run finished (others: it gave way to one still to come); the kind of st.error


@dataclass(frozen=True)
class Shown:
    """A page as it came: seconds until it was whole, and what was sent."""

    seconds: float
    content: bytes


class Visitor:
    """A session. Not for several threads at once."""

    def __init__(self, port: int) -> None:
        self._socket = connect(f"ws://127.0.0.1:{port}/_stcore/stream", subprotocols=[Subprotocol("streamlit")], max_size=None,
                               open_timeout=60, ping_interval=None)
        self._page = self._hash = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, page: str, query: str = "", timeout: float = 120) -> Shown:
        """Run a page with a query string, as a person would who opens it or changes something on it. Raises DiffspectError where the page
        fails, or says that something went wrong."""
        known = page == self._page and self._hash
        start = time.perf_counter()
        self._socket.send(_message(_RERUN, _text(_QUERY, query) + (_text(_HASH, self._hash) if known else _text(_PAGE, page))))
        content = []
        for message in iter(lambda: self._socket.recv(timeout=timeout), None):
            assert isinstance(message, bytes)
            content.append(message)
            told = dict(fields(message))
            self._page, self._hash = page, str(find(told.get(_NAVIGATION, b""), _SHOWN) or b"", "utf-8") or self._hash
            _sound(page, told.get(_DELTA, b""))
            if told.get(_FINISHED) == _COMPILE_ERROR:
                raise DiffspectError(f"The page {page!r} cannot be read.")
            if told.get(_FINISHED) == _WHOLE:
                break
        return Shown(time.perf_counter() - start, b"".join(content))


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
