"""Put on the path of the product's processes by `tests.benchmarks.chaos`: one of them kills itself at a moment that is told beforehand.

CHAOS in the environment is JSON. {"count": FOLDER}: each point that is passed adds a byte to FOLDER/<role>.<point>. Else {"role", "point",
"nth", "when", "delay", "mark"}: the nth time that a process of this role passes the point it dies by SIGKILL, and says so in the file
`mark` first, so that no second one does.

    role    app | supervisor | worker, by the command line of the process
    point   replace, rename, fsync, unlink (of os) · commit (of the database) · checkpoint (it is closed, which folds its log in)
    when    before · after · inside (`delay` seconds after it began, by a thread; of replace and rename: the source is cut to half first,
            which is what dying within the write before it leaves)

The product knows nothing of it.
"""

import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import threading
import time
from types import ModuleType
from typing import Any

_CHAOS: dict[str, Any] = json.loads(os.environ.get("CHAOS") or "{}")
_seen = 0
_guard = threading.Lock()


def _role() -> str:
    words = sys.orig_argv
    if "tests.benchmarks.chaos_app" in words:
        return "app"
    if "backend" in words:
        word = words[words.index("backend") + 1] if words.index("backend") + 1 < len(words) else ""
        return {"worker": "supervisor", "run": "worker"}.get(word, word)
    return ""


def _mine(what: str) -> bool:
    """Whether this process is the one that dies: it says so before anything else, and another one of its role does not."""
    try:
        fd = os.open(_CHAOS["mark"], os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return False
    os.write(fd, what.encode(errors="replace"))
    os.close(fd)
    return True


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


def _due(point: str) -> bool:
    """Whether this is the time."""
    global _seen
    if "count" in _CHAOS:
        with open(os.path.join(_CHAOS["count"], f"{_role()}.{point}"), "ab", buffering=0) as f:
            f.write(b".")
        return False
    if _CHAOS.get("role") != _role() or _CHAOS.get("point") != point:
        return False
    with _guard:
        _seen += 1
        return bool(_seen == _CHAOS["nth"])


def _later() -> None:
    def wait() -> None:
        time.sleep(_CHAOS["delay"])
        _die()

    threading.Thread(target=wait, daemon=True).start()


def _wrapped(point: str, original: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _due(point) or not _mine(f"{point} {_CHAOS['when']}: {' '.join(map(str, args))}"):
            return original(*args, **kwargs)
        when = _CHAOS["when"]
        if when == "before":
            _die()
        if when == "inside" and point in ("replace", "rename") and os.path.isfile(args[0]):
            os.truncate(args[0], os.path.getsize(args[0]) // 2)
            _die()
        if when == "inside":
            _later()
        result = original(*args, **kwargs)
        if when == "after":
            _die()
        return result

    return call


def _database(module: ModuleType) -> None:
    execute, close = module.Cursor.execute, module.Database.close

    def commits(self: Any, sql: str, parameters: Any = ()) -> Any:
        if sql.strip().upper() != "COMMIT":
            return execute(self, sql, parameters)
        return _wrapped("commit", lambda: execute(self, sql, parameters))()

    module.Cursor.execute = commits
    module.Database.close = lambda self: _wrapped("checkpoint", lambda: close(self))()


class _Finder(importlib.abc.MetaPathFinder):
    """Sees the product's database module being loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "backend.store.database":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                _database(module)

            spec.loader.exec_module = exec_module         # type: ignore[method-assign]
        return spec


if _CHAOS and _role():
    for _name in ("replace", "rename", "fsync", "unlink"):
        setattr(os, _name, _wrapped(_name, getattr(os, _name)))
    sys.meta_path.insert(0, _Finder())
