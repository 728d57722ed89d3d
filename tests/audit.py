"""`make audit`: known holes in the locked packages (pip-audit), and patterns in our own source that make holes (bandit).

pip-audit asks a service on the internet for advisories. Where that cannot be reached nobody knows, and it says so: that is no pass.
Bandit needs no network. What it finds is mended, or carries `# nosec` with the reason; asserts state our own mistakes, and are let be.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv-audit" / "bin"
UNREACHED = ("The advisory service cannot be reached from here, so nobody knows whether the locked packages have known holes. Run "
             "`make audit` where there is a way to it (HTTPS_PROXY), or carry the lock files there.")
MOST_S = 600                           # a service that does not answer is asked for each package


def packages(lock: str) -> int:
    """0: nothing is known against them; 1: something is; 3: nobody knows, of some or of all."""
    words = [str(BIN / "pip-audit"), "-r", lock, "--disable-pip", "--require-hashes", "--progress-spinner", "off", "-f", "json"]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=MOST_S)
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print(f"{lock}: {UNREACHED}")
        return 3
    return told(lock, found)


def told(lock: str, found: list[dict[str, Any]]) -> int:
    """One that was skipped is one of which nobody knows: a mirror that has packages but no advisories skips them all."""
    holes = [f"{d['name']} {d['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no version yet'}"
             for d in found for v in d.get("vulns", [])]
    unknown = [d["name"] for d in found if "skip_reason" in d]
    print(f"{lock}: {len(found)} packages, {len(holes)} known holes", *holes, sep="\n  ")
    if unknown:
        print(f"{lock}: {UNREACHED if len(unknown) == len(found) else f'Nobody knows of {len(unknown)}: ' + ', '.join(unknown)}")
    return 1 if holes else 3 if unknown else 0


# Findings that say nothing here, and why. All else is mended, or explained where it stands.
SKIPPED = {
    "B101": "asserts state mistakes of our own, as the design asks; what comes from outside is refused by errors",
    "B105": "words such as 'passed' in constants are taken for passwords", "B107": "an empty default of a password is none",
    "B311": "chance for training, benchmarks and pauses; tokens and salts come from `secrets` and argon2",
    "B404": "subprocess belongs to backend.jobs alone (tests/test_layers.py)",
    "B603": "without a shell everywhere (tests/test_pickles.py), and what is started is ours",
    "B608": "SQL is put together from constants of the store and table look-ups; what a person gives is bound"}


def source() -> int:
    words = [str(BIN / "bandit"), "-q", "-r", "backend", "pages", "app.py", "frame.py", "--skip", ",".join(SKIPPED), "-f", "custom",
             "--msg-template", "{relpath}:{line}: {test_id} {severity} {msg}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    print(f"our source: {done.stdout.strip() or 'bandit finds nothing'}")
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(max([source(), *map(packages, ("requirements.lock", "tests/requirements.lock"))]))
