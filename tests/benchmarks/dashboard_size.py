"""How the dashboard fares at ten million inspections: runs `bench dashboard` and writes results/dashboard.json.

    python -m tests.benchmarks.dashboard_size [--rows N] [--data DIR] [--rounds N]

On a quiet machine; every stage that was measured is kept in DIR, so a stopped benchmark goes on. Times are milliseconds.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from backend.jobs.bench_dashboard import quantile
from tests.benchmarks.record import ROOT, write

# What is told of values asked several times: the file holds no ten thousand of them.
QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    words = ["bench", "dashboard", "--rows", str(given.rows), "--data", str(given.data), "--rounds", str(given.rounds), "--json"]
    done = subprocess.run([sys.executable, "-m", "backend", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(write("dashboard", "python -m tests.benchmarks.dashboard_size --data DIR", summary(found["arms"]), found["seeds"], found["notes"],
                ("streamlit", "duckdb", "pyarrow")))


def summary(arms: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """Median, 95 % and largest of what was asked several times; single figures as they are."""
    told: dict[str, dict[str, list[float]]] = {}
    for size, arm in arms.items():
        own = told.setdefault(size, {})
        for metric, values in arm.items():
            for name, share in QUANTILES.items() if len(values) > 1 else {"": 0.5}.items():
                own[f"{metric}, {name}".rstrip(", ")] = [round(quantile(values, share), 1)]
    return told


if __name__ == "__main__":
    main()
