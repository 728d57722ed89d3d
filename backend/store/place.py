"""Where a lake is, and which of its plants this one is: from the environment, or as somebody says. See `lake`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from backend.errors import StoreError


@dataclass(frozen=True)
class Place:
    """Where a lake is (`postgres:` and a libpq connection string, or a DuckDB file), where its files are, and which of its plants this
    is. Raises StoreError."""

    catalogue: str
    files: Path
    plant: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w -]{0,39}", self.plant) or self.schema in ("real", "demo", "main"):
            raise StoreError("A lake needs the name of this plant in DIFFSPECT_PLANT: up to 40 letters, digits, spaces and hyphens, not "
                             f"\"real\", \"demo\" or \"main\". It is {self.plant!r}.")
        if not str(self.files).startswith("/"):
            raise StoreError("A lake needs the folder of its files in DIFFSPECT_STORE_FILES, with its whole path, the same folder for all "
                             f"plants. Object storage has to be mounted as one. It is {str(self.files)!r}.")

    @property
    def schema(self) -> str:
        return re.sub(r"[ -]", "_", self.plant.lower())

    @property
    def told(self) -> str:
        """The catalogue, without a password."""
        return without_password(self.catalogue)


def without_password(text: str) -> str:
    """A connection string, or an error that quotes one, without what stands for a password in it."""
    return re.sub(r"://([^:/@\s]*):[^@\s]*@", r"://\1:…@", re.sub(r"password\s*=\s*('(?:\\.|[^'\\])*'|\S+)", "password=…", text))


def chosen() -> Place | None:
    """The lake of the environment, None for a file. Raises StoreError."""
    catalogue = os.environ.get("DIFFSPECT_STORE", "")
    if catalogue in ("", "embedded"):
        return None
    return Place(catalogue, Path(os.environ.get("DIFFSPECT_STORE_FILES", "")), os.environ.get("DIFFSPECT_PLANT", ""))
