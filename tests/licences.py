"""LICENSES.md: every locked package with its licence, by its own metadata, and whether it goes together with AGPL-3.0-or-later.

    python -m tests.licences        writes it, from the packages that are installed here

A package that the lock names for other systems alone is not installed here, and said so. What is no free licence is no part of the product
either: it is listed apart, with what it is needed for.
"""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"requirements.lock": "The product", "tests/requirements.lock": "For tests and development"}
FILE = ROOT / "LICENSES.md"
# Words by which a licence is known, the surest first; each goes together with AGPL-3.0-or-later: its terms ask for nothing that the AGPL
# forbids (Apache-2.0 and MPL-2.0 by GPL version 3's own words; LGPL and GPL "or later").
KNOWN = {"AGPL-3.0": r"AGPL|Affero", "LGPL": r"LGPL|Lesser General", "GPL-2.0-or-later or 3": r"\bGPL[- ]?[23v]|General Public",
         "MPL-2.0": r"MPL|Mozilla", "Apache-2.0": r"Apache", "BSD": r"\bBSD\b|0BSD", "MIT": r"\bMIT\b|MIT-CMU|HPND|\bExpat\b",
         "ISC": r"\bISC\b",
         "PSF-2.0": r"PSF|Python Software Foundation|CNRI", "Zlib": r"zlib", "Unlicense or public domain": r"Unlicense|public domain|CC0"}
# Free of charge, but not free: installed from its maker beside the product, never part of it or handed on with it.
APART = r"NVIDIA|Proprietary"
# Packages that name none, and what somebody found who looked.
LOOKED = {"cuda-toolkit": "NVIDIA's: names its other packages, and holds no file"}
HEAD = """# Licences

Diffspect is AGPL-3.0-or-later (see LICENSE). It is installed together with the packages below, each from its own maker, under its own
licence. Made by `make licences` from the packages' metadata; a test compares it with the lock files.

"""


def locked(lock: str) -> dict[str, str]:
    """Name and version of each package in a lock file."""
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", (ROOT / lock).read_text(), re.MULTILINE | re.IGNORECASE))


def licence(package: Distribution) -> str:
    """In its own words: the expression, else the classifiers, else the first line of the field."""
    said = package.metadata
    classes = [c.rpartition(" :: ")[2] for c in said.get_all("Classifier") or [] if c.startswith("License ::")]
    field = (said.get("License") or "").strip().splitlines()
    named = [c for c in classes if c not in ("OSI Approved",)]
    words = str(said.get("License-Expression") or ", ".join(named) or (field[0][:80] if field else ""))
    return LOOKED.get(package.name) or (words if words not in ("", "UNKNOWN") else _file(package))


def _file(package: Distribution) -> str:
    """Of a package that names none: the first words of its licence file."""
    for path in package.files or []:
        text = Path(str(path.locate()))
        if re.search(r"licen[cs]e|copying", path.name, re.IGNORECASE) and text.is_file():
            words = " ".join(text.read_text("utf-8", "replace").split())[:4000]
            return next((name for name, pattern in KNOWN.items() if re.search(pattern, words)), "")
    return ""


def verdict(said: str) -> str:
    """goes together | apart | ?"""
    if re.search(APART, said, re.IGNORECASE):
        return "apart"
    return "goes together" if any(re.search(p, said, re.IGNORECASE) for p in KNOWN.values()) else "?"


def rows(lock: str, without: set[str]) -> list[tuple[str, str, str, str]]:
    found = []
    for name, version in sorted(locked(lock).items()):
        if name in without:
            continue
        try:
            package = distribution(name)
            said = " ".join(licence(package).replace("|", "/").split()) or "not named"
            found.append((name, version, said, verdict(said)))
        except PackageNotFoundError:
            found.append((name, version, "not installed on this system", "not here"))
    return found


def table(found: list[tuple[str, str, str, str]]) -> str:
    return "\n".join(["| package | version | licence | with AGPL-3.0-or-later |", "| --- | --- | --- | --- |",
                      *(f"| {' | '.join(row)} |" for row in found)])


def main() -> int:
    parts, seen, unknown = [HEAD], set[str](), list[str]()
    for lock, title in LOCKS.items():
        found = rows(lock, seen)
        seen |= {row[0] for row in found}
        unknown += [f"{row[0]}: {row[2]}" for row in found if row[3] == "?"]
        parts.append(f"## {title} (`{lock}`)\n\n{table(found)}\n\n")
    parts.append("`apart`: free of charge but not free; NVIDIA's libraries come with the GPU builds of PyTorch from their maker, are used "
                 "where a GPU is,\nand are neither part of Diffspect nor handed on with it. `not here`: locked for another system.\n")
    FILE.write_text("".join(parts))
    print(f"{len(seen)} packages; nobody has looked at: {', '.join(unknown) or 'none'}")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
