"""Uploaded files, set aside on disk as soon as they arrive.

Streamlit holds uploads in memory until the session ends, whatever becomes of the widget, and copies them all at each run of the page
(1.67: `SessionState.register_widget` deep-copies the value). A thousand pictures of 250 KB would cost 500 MB, and stay. So the uploader's
callback, which sees the files before they are copied, moves them here and tells Streamlit to forget them.
Names from outside never reach the file system.
"""

import ctypes
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile


class Shelf:
    """Files of one session in a folder that goes with it; each under its number, its name kept beside."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="diffspect-upload-"))
        self.clear = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.names: list[str] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, content: BinaryIO) -> None:
        with open(self._folder / f"{len(self):06d}", "wb") as f:
            shutil.copyfileobj(content, f, 1 << 20)
            self.bytes += f.tell()
        self.names.append(name)

    def files(self) -> Iterator[tuple[str, BinaryIO]]:
        """One open file after the other, as `jobs.submit` takes them."""
        for number, name in enumerate(self.names):
            with open(self._folder / f"{number:06d}", "rb") as f:
                yield name, f


def of(name: str) -> Shelf | None:
    """The session's shelf under this name, if anything was put there."""
    return st.session_state.get(f"{name}_shelf")


def uploader_key(name: str, way: str) -> str:
    """A new one after each upload, so that the uploader is empty again."""
    return f"{name}_{way}_{st.session_state.get(f'{name}_round', 0)}"


def set_aside(name: str, way: str) -> None:
    """The uploader's callback: its files go to the shelf and out of memory."""
    uploaded: list[UploadedFile] = st.session_state[uploader_key(name, way)] or []
    shelf: Shelf = of(name) or st.session_state.setdefault(f"{name}_shelf", Shelf())
    for file in uploaded:
        shelf.add(file.name, file)
    _forget(uploaded)
    st.session_state[f"{name}_round"] = st.session_state.get(f"{name}_round", 0) + 1


def clear(name: str) -> None:
    """Throw the shelf away."""
    shelf: Shelf | None = st.session_state.pop(f"{name}_shelf", None)
    if shelf is not None:
        shelf.clear()
    give_back()


def _forget(files: list[UploadedFile]) -> None:
    context = get_script_run_ctx()
    manager = context.uploaded_file_mgr if context else None
    if context and isinstance(manager, MemoryUploadedFileManager):
        for file in files:
            manager.remove_file(context.session_id, file.file_id)


def give_back() -> None:
    """Freed memory returns to the system: glibc keeps it in the holes between what is still used. Other systems need no asking."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
