#!/usr/bin/env bash
# The distillation benchmark on a machine that has a GPU and PyTorch, but neither a network nor our other packages.
#
#   python -m tests.benchmarks.carry               where there is a network: fills .carry/, which travels with the checkout
#   bash tests/benchmarks/gpu.sh install           there: unpacks what came along; `check` and `run` do so too
#   bash tests/benchmarks/gpu.sh check             there: every arm once, an epoch and a few steps: what breaks, how long it takes
#   bash tests/benchmarks/gpu.sh run [SECONDS]     there: starts what is missing or finds it running, waits so long, packs what is done
#
# NEU-DET first, then magnetic-tile. They are too large to travel together: the second comes along with the second command, and where
# it is not there yet when NEU-DET is through, that command's `run` starts it. SETS=magnetic-tile leaves the first out.
# Trainings belong to a process session of their own, so they go on between two calls of `run`. What is done lies in
# $OUT/results.tar.gz: unpack it into tests/benchmarks/results/ and commit; an arm and seed that is there is not run again.
set -euo pipefail

BASE=${BASE:-/tmp/gpu}                     # a copy of the checkout to run in: the next call's files disturb nothing
OUT=${OUT:-$BASE/out}
SLOTS=${SLOTS:-8}                          # trainings at once; each gets its share of the cores
SHAPE=${SHAPE:-gpu}                        # of the benchmark: its epochs and steps, and the folder of its results
SEEDS=${SEEDS:-0 1 2}
SETS=${SETS:-neu-det magnetic-tile}        # datasets, in order of worth
WORK=$BASE/$SHAPE                          # with a data folder for each of them
declare -A FOLDERS=([neu-det]=NEU-DET [magnetic-tile]=magnetic-tile)
export PYTHONPATH=$BASE/site PYTHONUNBUFFERED=1 YOLO_OFFLINE=1 BASE OUT SLOTS SHAPE SEEDS SETS

install() {
    mkdir -p "$BASE/main" "$BASE/shared" "$OUT"
    if ! cmp -s .carry/site/pins.txt "$BASE/pins.txt" && [ -e .carry/site/site.tar.xz ]; then
        rm -rf "$BASE/site"
        python3 -m tarfile -e .carry/site/site.tar.xz "$BASE/site"
        python3 -m compileall -q -j 0 "$BASE/site" || true          # else each of many processes would do it
        cp .carry/site/pins.txt "$BASE/pins.txt"
    fi
    for part in .carry/*/shared.tar.xz; do
        [ ! -e "$part" ] || cmp -s "$part" "$BASE/$(basename "$(dirname "$part")").tar.xz" && continue
        python3 -m tarfile -e "$part" "$BASE/shared"
        cp "$part" "$BASE/$(basename "$(dirname "$part")").tar.xz"
    done
    tar c --exclude=./.carry --exclude=./.git --exclude=./.venv --exclude=./data/runs . | tar x -C "$BASE/main"
    [ ! -e .carry/site/commit ] || cp .carry/site/commit "$BASE/commit"
    cd "$BASE/main"
    python3 -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
}

bench() {
    BENCHMARK_COMMIT=$(cat "$BASE/commit") python3 -m tests.benchmarks.distillation --set "$SET" --shape "$SHAPE" --data "$WORK/$SET" "$@"
}

# One line per chain of trainings that must follow one another, in order of worth. "shared" is what all arms but two learn
# from: diffusion model and feature repository. Of the second dataset one seed is asked, and no teacher's own figures.
chains() {
    echo shared
    if [ "$SET" != neu-det ]; then
        local seed=0
        echo "$seed plain self"
        echo "$seed ddpm-taught"
        echo "$seed ddpm-distilled ddpm-taught-distilled"
        return
    fi
    for seed in $SEEDS; do echo "$seed plain self"; done
    for seed in $SEEDS; do echo "$seed ddpm-taught"; echo "$seed ddpm-distilled fused ddpm-taught-distilled fused-taught"; done
}

all() {
    for SET in $SETS; do
        export SET
        if [ ! -d "$BASE/shared/data/${FOLDERS[$SET]}" ]; then
            echo "$SET has not come along"
            continue
        fi
        mkdir -p "$WORK/$SET"
        rm -f "$WORK/$SET"/shared.*
        chains | xargs -P "$SLOTS" -L 1 --process-slot-var=SLOT bash "$0" chain || true       # of a broken chain its log tells
    done
    echo "all chains have ended"
}

chain() {
    local share=$(($(nproc) / SLOTS))
    share=$((share < 1 ? 1 : share))
    local first=$((SLOT * share % $(nproc)))
    taskset -cp $first-$((first + share - 1)) $$ >/dev/null         # loaders and threads follow from it
    local shared=$WORK/$SET/shared
    if [ "$1" = shared ]; then
        bench --shared >"$shared.log" 2>&1 && touch "$shared.done" || { touch "$shared.failed"; exit 1; }
        return
    fi
    [ "$2" = plain ] || until [ -e "$shared.done" ]; do
        [ ! -e "$shared.failed" ] || exit 1
        sleep 1
    done
    bench --seeds "$1" --arms "${@:2}" >"$WORK/$SET/$2-$1.log" 2>&1
}

running() { kill -0 "$(cat "$WORK/pid" 2>/dev/null)" 2>/dev/null; }

started() {
    mkdir -p "$WORK"
    running || { setsid bash tests/benchmarks/gpu.sh all >>"$WORK/all.log" 2>&1 </dev/null & echo $! >"$WORK/pid"; }
}

waited() {
    local end=$((SECONDS + $1)) seen=utilization.gpu,memory.used
    nvidia-smi --query-gpu=timestamp,$seen --format=csv,noheader -l 5 >"$OUT/gpu.csv" 2>/dev/null &      # more SLOTS, or fewer?
    local watch=$!
    while running && ((SECONDS < end)); do sleep 1; done
    kill $watch 2>/dev/null || true
}

# At most 8 files of 16 MiB come back: figures; curves and logs of every run; the diffusion models, in pieces.
packed() {
    (cd tests/benchmarks/results && find . -path "./distillation*-$SHAPE/*" | tar czf "$OUT/results.tar.gz" -T -)
    (cd "$WORK" && find . -name '*.log' -o -name log.txt -o -name metrics.jsonl -o -name job.json -o -name state.json -o -name progress.json \
        -o -name result.json -o -name head.json -o -name samples.png | tar czf "$OUT/runs.tar.gz" -T -)
    (cd "$WORK" && find . -path './*/runs/*/denoiser' | tar c -T - | split -b 15M - "$OUT/denoiser.tar.")
    (nvidia-smi || true) >"$OUT/nvidia-smi.txt" 2>&1
}

told() {
    python3 - "$WORK" <<'PY'
import json, sys
from pathlib import Path
for run in sorted(Path(sys.argv[1]).glob("*/runs/[0-9]*")):
    job, state = (json.loads((run / f).read_text()) for f in ("job.json", "state.json"))
    progress = json.loads((run / "progress.json").read_text()) if (run / "progress.json").exists() else {}
    print(run.parts[-3], job["recipe"], job["config"].get("name", ""), state["state"], state["message"][:300],
          f"{progress.get('step')}/{progress.get('total')}, {progress.get('eta_s')} s left" if state["state"] == "running" else "")
for file in sorted(Path("tests/benchmarks/results").glob(f"distillation*-{Path(sys.argv[1]).name}/*.json")):
    told = json.loads(file.read_text())
    print(file.parent.name, file.stem, told["figures"]["map50"], told["seconds"], "s")
PY
    for log in "$WORK"/*.log "$WORK"/*/*.log; do
        if [ -e "$log" ] && grep -q Error "$log"; then echo "== $log"; tail -n 15 "$log"; fi
    done
    running && echo "still running" || tail -n 1 "$WORK/all.log"
}

case ${1:-} in
    install) install ;;
    check) SHAPE=check SEEDS=0 SLOTS=4 exec bash "$0" run "${2:-300}" ;;
    run) install; started; waited "${2:-500}"; packed; told ;;
    all | chain | chains) "$@" ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
