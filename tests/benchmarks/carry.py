"""Pack what a GPU machine without a network lacks, for gpu.sh to unpack there: packages, the data with its scorer, the commit.

    python -m tests.benchmarks.carry [NEU-DET magnetic-tile ...]

Fills `.carry/site` and `.carry/<dataset>`, which git does not see. Packages come in the versions of requirements.lock, built
for that machine's Python, and only those that its image (PyTorch, pyarrow, pandas, ONNX Runtime, OpenCV ...) has not.
"""

import argparse
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.record import ROOT, SHARED

CARRY = ROOT / ".carry"
PYTHON = "3.12"                              # of the GPU machine
LIMIT = 64.0                                 # MiB that travel with one command, the working tree included
LACKING = ("ultralytics", "ultralytics-thop", "diffusers", "importlib-metadata", "lazy-importer", "duckdb", "faster-coco-eval",
           "imagehash", "pywavelets", "tzdata")
GLIBC = ("2_28", "2_27", "2_26", "2_17", "2014", "1")
_PIN = re.compile(r"^(\S+)==(\S+?)(?: ; (.+?))? \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)


def pins(lock: str) -> str:
    """The lines of a lock file that name LACKING packages, with their hashes, as pip reads them."""
    chosen = {}
    for name, version, marker, hashes in _PIN.findall(lock):
        if name in LACKING and applies(marker):
            chosen[name] = f"{name}=={version} \\\n{hashes}"
    missing = sorted(set(LACKING) - chosen.keys())
    assert not missing, f"not in the lock file: {missing}"
    return "".join(chosen[name] for name in LACKING)


def applies(marker: str) -> bool:
    """Whether a lock file's marker holds there; pip would ask the Python that runs here."""
    if not marker:
        return True
    met = re.fullmatch(r"python_full_version (<|>=) '([\d.]+)'", marker)
    assert met, f"no rule for the marker {marker!r}"
    here, there = ([int(n) for n in v.split(".")] for v in (PYTHON, met[2]))
    return here < there if met[1] == "<" else here >= there


def site() -> None:
    """Installed packages as one archive: wheels are packed too loosely to travel with the data."""
    folder, wanted = CARRY / "site", pins((ROOT / "requirements.lock").read_text())
    listed = folder / "pins.txt"
    if listed.exists() and listed.read_text() == wanted:
        return
    fresh(folder)
    (CARRY / "pins.txt").write_text(wanted)
    tags = [word for glibc in GLIBC for word in ("--platform", f"manylinux{'_' if '_' in glibc else ''}{glibc}_x86_64")]
    with TemporaryDirectory() as unpacked:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", unpacked, "--no-deps",
                        "--no-compile", "--only-binary=:all:", "--require-hashes", "--implementation", "cp", "--python-version", PYTHON,
                        "--ignore-requires-python", *tags, "-r", str(CARRY / "pins.txt")], check=True)      # it would ask this Python
        pack(folder / "site.tar.xz", {p.name: p for p in Path(unpacked).iterdir()})
    (CARRY / "pins.txt").rename(listed)                                     # last: says that the archive is whole


def dataset(name: str) -> None:
    """Images, labels and lists of one dataset, and the published scorers."""
    fresh(CARRY / name)
    pack(CARRY / name / "shared.tar.xz", {f"data/{name}": SHARED / "data" / name, "score": SHARED / "score"})


def commit() -> None:
    """What the figures come from; the checkout that travels has no history. '+' where files differ from it."""
    told = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (CARRY / "site" / "commit").write_text(told)


def fresh(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()


def pack(file: Path, members: dict[str, Path]) -> None:
    with tarfile.open(file, "w:xz") as archive:
        for name, path in sorted(members.items()):
            archive.add(path, name)


def mib(*paths: Path) -> float:
    return sum(p.stat().st_size for p in paths if p.is_file()) / 2**20


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("datasets", nargs="*", default=["NEU-DET"])
    names = ap.parse_args().datasets
    CARRY.mkdir(exist_ok=True)
    (CARRY / ".gitignore").write_text("*\n")
    site()
    commit()
    for name in names:
        dataset(name)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout.split("\0")
    tree, packages = mib(*(ROOT / p for p in listed if p)), mib(*(CARRY / "site").iterdir())
    print(f"working tree {tree:.1f} MiB, packages {packages:.1f} MiB")
    for name in names:
        data = mib(*(CARRY / name).iterdir())
        both = tree + packages + data
        print(f"{name} {data:.1f} MiB: with all {both:.1f} of {LIMIT:.0f} MiB, without the packages {tree + data:.1f}")
        if tree + data > LIMIT:
            sys.exit(f"{name} is too large to travel.")


if __name__ == "__main__":
    main()
