"""Where a lake is: its password is said in no error and written to no log, though the engine quotes it in what went wrong."""

import logging
import traceback
from pathlib import Path

import pytest

from backend.errors import StoreError
from backend.jobs import logs
from backend.store.lake import Lake
from backend.store.place import Place, without_password

CATALOGUES = ["host=/nowhere user=me password=hunter2 dbname=x", "host=127.0.0.1 port=9 user=me password='hun ter2' dbname=x",
              r"host=127.0.0.1 port=9 user=me password = 'hun\'ter2' dbname=x", "postgresql://me:hunter2@127.0.0.1:9/x",
              "postgresql://me@127.0.0.1:9/x?password=hunter2"]


@pytest.mark.parametrize("catalogue", CATALOGUES)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_lake_that_cannot_be_reached_says_no_password(catalogue: str, form: str, tmp_path: Path, data_folder: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_LOG", form)
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        Lake(Place(f"postgres:{catalogue}", tmp_path / "lake", "Linz"))
    quoted, printed = str(caught.value.__context__), "".join(traceback.format_exception(caught.value))
    assert "hun" in quoted and "ter2" in quoted, "the engine does quote it, so there is something to hide"
    with logs.kept("app"):
        logging.getLogger("backend.store").error("No lake (%s)", quoted, exc_info=caught.value)
    written = (logs.folder() / "app.log").read_text()
    assert "Traceback" in written and "me" in written
    for said in (str(caught.value), printed, written):
        assert "hun" not in said and "ter2" not in said and "…" in said


def test_what_is_no_password_stays() -> None:
    for text in ("This name and password do not belong together.", "http://127.0.0.1:8501/?run=1", "Too many wrong passwords."):
        assert without_password(text) == text
