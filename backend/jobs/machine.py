"""The machine, for `preflight`: memory, processor, GPU, and whether its clock goes steadily. A `Line` says how one thing is."""

import platform
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from backend.device import arithmetics, cores

WORDS = {"good": "Good", "look": "Look", "bad": "Act"}
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_OFFSET = time.time() - time.clock_gettime(_BOOT)              # as it was when this process began; sleep of the machine is in both


@dataclass(frozen=True)
class Line:
    """One check. `state`: good | look | bad; `do` is empty where nothing is to be done."""

    name: str
    state: str
    said: str
    do: str = ""

    @property
    def word(self) -> str:
        return WORDS[self.state]


def memory() -> Line:
    known = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M))
    total, free = (int(known[k]) / 1e6 for k in ("MemTotal", "MemAvailable"))
    said = f"{free:.1f} of {total:.1f} GB can be used now."
    if free < 1:
        return Line("Memory", "bad", f"{said} A training is likely to be killed by the system.", "End what else runs here, or add memory.")
    if total < 7.5:
        return Line("Memory", "look", f"{said} Small for trainings beside a dashboard.", "Set DIFFSPECT_WARM=off; train in small batches.")
    return Line("Memory", "good", said)


def processor() -> Line:
    words = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    has = " and ".join(arithmetics())
    said = f"{cores()} cores, {platform.machine()}, {f'{has} in hardware' if has else 'neither bf16 nor int8: float32 is used'}."
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in words:
        return Line("Processor", "look", f"{said} It lacks AVX2, so inspection is several times slower.", "Use a machine of 2014 or later.")
    if cores() < 2:
        return Line("Processor", "look", f"{said} Pages wait while something is computed.", "Give the program two cores or more.")
    return Line("Processor", "good", said)


def graphics() -> Line:
    driver = Path("/proc/driver/nvidia/version")
    if not shutil.which("nvidia-smi"):
        if driver.exists():
            return Line("GPU", "look", "A driver of NVIDIA is loaded, but nvidia-smi is missing: the GPU may not be usable here.",
                        "In a container, give it the GPU; else install the driver's tools.")
        return Line("GPU", "good", "None. All works without one; a training takes several times as long.")
    done = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.free",  # nosec B607 # the driver's own
                           "--format=csv,noheader"],
                          capture_output=True, text=True, timeout=20)
    found = [one.strip() for one in done.stdout.splitlines() if one.strip()] if done.returncode == 0 else []
    if not found:
        return Line("GPU", "bad", f"The driver does not answer: {(done.stdout or done.stderr).strip().splitlines()[:1] or 'nothing said'}.",
                    "Load the driver again, or start the machine anew; trainings run on the processor meanwhile.")
    return Line("GPU", "good", "; ".join("{}, driver {}, {} ({} free)".format(*one.split(", ")) for one in found) + ".")


def jumped() -> float:
    """Seconds that the clock was set forward (or back, then less than 0) since this process began."""
    return time.time() - time.clock_gettime(_BOOT) - _OFFSET
