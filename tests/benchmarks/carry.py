"""Pack what a GPU machine without a network lacks, for gpu.sh to unpack there: packages, the data with its scorer, the commit.

    python -m tests.benchmarks.carry [NEU-DET magnetic-tile]          these or one of them; says which folders travel together
    python -m tests.benchmarks.carry synthesis                        all that gpu_synthesis.sh asks for

Fills `.carry/site` and `.carry/<dataset>`, which git does not see. Packages come in the versions of requirements.lock, built
for that machine's Python, and only those that its image (PyTorch, pyarrow, pandas, ONNX Runtime, OpenCV ...) has not.
Measured: working tree 12.6 MiB, packages 21.4, NEU-DET 24.6: together 58.6 of 64. magnetic-tile is 48.7, as it is: 61.3 with
the working tree, so it travels with a second command, without the packages, while the machine still has them from the first.
For synthesis the tree is 14.0: packages with `peft` and `lite0` make 58.4, NEU-DET and PIPED 53.1, magnetic-tile 62.7.
"""

import argparse
import re
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.record import ROOT, SHARED

CARRY = ROOT / ".carry"
PYTHON = "3.12"                              # of the GPU machine
LIMIT = 64.0                                 # MiB that travel with one command, the working tree included
LACKING = ("ultralytics", "ultralytics-thop", "diffusers", "importlib-metadata", "lazy-importer", "duckdb", "faster-coco-eval",
           "imagehash", "pywavelets", "tzdata")
PRIOR = ("transformers", "tokenizers", "peft")                           # for `peft`: what synthesis asks for beside these
SYNTHESIS = ("peft", "lite0", "NEU-DET", "PIPED", "magnetic-tile")       # in the order in which they travel
GLIBC = ("2_28", "2_27", "2_26", "2_17", "2014", "1")
_PIN = re.compile(r"^(\S+)==(\S+?)(?: ; (.+?))? \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)


def pins(lock: str, names: tuple[str, ...] = LACKING) -> str:
    """The lines of a lock file that name these packages, with their hashes, as pip reads them."""
    chosen = {}
    for name, version, marker, hashes in _PIN.findall(lock):
        if name in names and applies(marker):
            chosen[name] = f"{name}=={version} \\\n{hashes}"
    missing = sorted(set(names) - chosen.keys())
    assert not missing, f"not in the lock file: {missing}"
    return "".join(chosen[name] for name in names)


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
    with TemporaryDirectory() as unpacked:
        install(wanted, unpacked)
        pack(folder / "site.tar.xz", {p.name: p for p in Path(unpacked).iterdir()})
    listed.write_text(wanted)                                               # last: says that the archive is whole


def install(wanted: str, folder: str) -> None:
    """Pinned packages for the GPU machine's Python."""
    tags = [word for glibc in GLIBC for word in ("--platform", f"manylinux{'_' if '_' in glibc else ''}{glibc}_x86_64")]
    (CARRY / "pins.txt").write_text(wanted)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", folder, "--no-deps",
                    "--no-compile", "--only-binary=:all:", "--require-hashes", "--implementation", "cp", "--python-version", PYTHON,
                    "--ignore-requires-python", *tags, "-r", str(CARRY / "pins.txt")], check=True)      # it would ask this Python
    (CARRY / "pins.txt").unlink()


def part(name: str) -> None:
    """One dataset with its lists, and the published scorers; `lite0`: the packages of the feature network; `peft`: PRIOR."""
    members = {f"data/{name}": SHARED / "data" / name, "score": SHARED / "score"}
    fresh(CARRY / name)
    with TemporaryDirectory() as unpacked:
        if name == "lite0":
            installed = Path(find_spec("efficientnet_lite_pytorch").origin).parents[1]        # two packages of plain Python, as they lie
            members = {f"packages/{p.name}": p for p in installed.glob("efficientnet_lite*")}
        if name == "peft":
            install(pins((ROOT / "requirements.lock").read_text(), PRIOR), unpacked)
            members = {f"packages/{p.name}": p for p in Path(unpacked).iterdir()}
        pack(CARRY / name / "shared.tar.xz", members)


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
    ap.add_argument("datasets", nargs="*", default=["NEU-DET", "magnetic-tile"])
    names = [n for given in ap.parse_args().datasets for n in (SYNTHESIS if given == "synthesis" else (given,))]
    CARRY.mkdir(exist_ok=True)
    (CARRY / ".gitignore").write_text("*\n")
    site()
    commit()
    for name in names:
        part(name)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout.split("\0")
    tree, packages = mib(*(ROOT / p for p in listed if p)), mib(*(CARRY / "site").iterdir())
    print(f"working tree {tree:.1f} MiB, packages {packages:.1f} MiB")
    for call, parts in enumerate(calls(tree, packages, {name: mib(*(CARRY / name).iterdir()) for name in names}), 1):
        print(f"command {call}: {', '.join(f'.carry/{p}' for p in parts)}, {tree + sum(parts.values()):.1f} of {LIMIT:.0f} MiB")


def calls(tree: float, packages: float, datasets: dict[str, float]) -> list[dict[str, float]]:
    """What travels with each command, in MiB: as few as will do, packages with the first. Exits where one part is too large alone."""
    found: list[dict[str, float]] = [{}]
    for name, size in {"site": packages, **datasets}.items():
        if tree + size > LIMIT:
            sys.exit(f"{name} is too large to travel: {tree + size:.1f} of {LIMIT:.0f} MiB with the working tree.")
        if tree + sum(found[-1].values()) + size > LIMIT:
            found.append({})
        found[-1][name] = size
    return found


if __name__ == "__main__":
    main()
