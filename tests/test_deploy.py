"""Deploying: the container file copies what the program needs and names no index; the unit passes systemd's own check; the lock without
CUDA is the rest of the lock; an install from a wheelhouse asks no index and checks hashes."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"


def steps() -> list[tuple[str, str]]:
    """(instruction, the rest) of the container file, its continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Containerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_no_address_of_an_index_or_registry() -> None:
    for file in DEPLOY.iterdir():
        found = re.findall(r"https?://[^\s'\"]+|[a-z0-9.-]+\.(?:io|org|com)/", file.read_text())
        assert all(address.startswith("http://127.0.0.1") for address in found), (file.name, found)


def test_the_container_has_what_the_program_needs() -> None:
    """Each module of ours that is imported at the top, the theme, the demo; nothing that is not in the repository."""
    sources = [part for kind, rest in steps() if kind == "COPY" and not rest.startswith("--from") for part in rest.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    needed = {"app.py", "frame.py", "backend", "pages", "data/demo", ".streamlit/config.toml", "deploy/entry.py", "requirements.lock"}
    assert needed <= set(sources)
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "**" and {source.split("/")[0] for source in sources} <= {line.strip("!").split("/")[0] for line in ignored}


def test_the_container_is_no_root_and_is_asked_for_its_health() -> None:
    last = steps()[max(n for n, (kind, _) in enumerate(steps()) if kind == "FROM"):]
    told = dict(last)
    assert told["USER"] == "diffspect" and told["VOLUME"] == "/data" and told["STOPSIGNAL"] == "SIGTERM"
    assert "/_stcore/health" in told["HEALTHCHECK"] and "deploy/entry.py" in told["ENTRYPOINT"]
    assert [kind for kind, _ in last].index("USER") > max(n for n, (kind, _) in enumerate(last) if kind == "RUN")
    assert dict(steps())["ARG"] and ("ARG", "TORCH=cpu") in steps()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here: apt-get install systemd")
def test_the_unit_passes_systemds_check(tmp_path: Path) -> None:
    unit = (DEPLOY / "diffspect.service").read_text()
    (tmp_path / "diffspect.service").write_text(unit.replace("/opt/diffspect/.venv/bin/python", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(tmp_path / "diffspect.service")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "ReadWritePaths=/var/lib/diffspect", "Restart=on-failure",
            "KillSignal=SIGTERM"} <= set(unit.splitlines())


def test_the_first_process_refuses_to_be_another() -> None:
    """It would end every process of this user."""
    done = subprocess.run([sys.executable, str(DEPLOY / "entry.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "for a container" in done.stderr


def test_the_lock_without_cuda_is_the_rest_of_it() -> None:
    """The program that deploy/install.sh has for awk, on the real lock."""
    lock = ROOT / "requirements.lock"
    (program,) = re.findall(r"awk '(.+)' \"\$lock\"", (DEPLOY / "install.sh").read_text())
    left = subprocess.run(["awk", program, str(lock)], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^([a-z0-9._-]+)==", lock.read_text(), re.M)
    kept = re.findall(r"^([a-z0-9._-]+)==", left, re.M)
    gone = set(names) - set(kept)
    assert {"torch", "torchvision", "triton"} <= gone and all(n.startswith(("torch", "triton", "nvidia-", "cuda-")) for n in gone)
    assert {"streamlit", "duckdb", "openvino", "prometheus-client"} <= set(kept) and left.count("--hash") > len(kept)
    assert not re.search(r"^\s+--hash.*\n(?=[a-z].*==)", left.replace(" \\\n", ""), re.M) and left.startswith(kept[0])


def wheel(folder: Path, name: str) -> str:
    """A package of nothing. The SHA-256 of its wheel."""
    about = f"{name}-1.0.dist-info"
    files = {f"{name}.py": "x = 1\n", f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
             f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
                     for path, text in files.items()) + f"{about}/RECORD,,\n"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as z:
        for place, text in (files | {f"{about}/RECORD": record}).items():
            z.writestr(place, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_an_offline_install_checks_hashes(tmp_path: Path) -> None:
    """A real virtual environment, from wheels alone; one that was changed on the way is refused."""
    shutil.copy(DEPLOY / "install.sh", tmp_path)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    digest = wheel(wheels, "somewhat")
    (tmp_path / "requirements.lock").write_text(f"somewhat==1.0 \\\n    --hash=sha256:{digest}\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | {"WHEELHOUSE": str(wheels), "PYTHON": sys.executable}
    command = ["sh", str(tmp_path / "install.sh"), str(tmp_path / "venv"), "gpu"]
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=300)
    assert subprocess.run([tmp_path / "venv" / "bin" / "python", "-c", "import somewhat"], timeout=60).returncode == 0
    (tmp_path / "requirements.lock").write_text(f"somewhat==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    shutil.rmtree(tmp_path / "venv")
    refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 1 and "DO NOT MATCH THE HASHES" in refused.stderr


def test_make_takes_a_wheelhouse() -> None:
    asked = ["make", "-n", "-W", "requirements.lock", "app", "WHEELHOUSE=/media/usb"]
    said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (install,) = [line for line in said.splitlines() if " pip install " in line and "requirements.lock" in line]
    assert "--no-index --find-links \"/media/usb\"" in install and "--require-hashes" in install
