#!/usr/bin/env bash
# The anomaly benchmark and its ablation on a machine that has a GPU and PyTorch, but neither a network nor our other packages.
#
#   python -m tests.benchmarks.carry lite0 PIPED magnetic-tile      where there is a network; says what travels with which command
#   bash tests/benchmarks/gpu_anomaly.sh check                      there: every arm once, a few steps: what breaks, how long it takes
#   bash tests/benchmarks/gpu_anomaly.sh run [SECONDS]              there: starts what is missing or finds it running, waits, packs
#
# Parts of the data that have not come along yet are left out; the next command's `run` makes up for them. Trainings belong to a
# process session of their own, so they go on between two calls. What is done lies in $OUT/results.tar.gz: unpack it into
# tests/benchmarks/results/ and commit; what is there is not run again. Knobs: SLOTS, SHAPE, SEEDS, PARTS, ABLATED (empty: no ablation).
set -euo pipefail

BASE=${BASE:-/tmp/gpu}
OUT=${OUT:-$BASE/out}
SLOTS=${SLOTS:-8}                          # trainings at once; each gets its share of the cores
SHAPE=${SHAPE:-gpu}
[ "$SHAPE" != short ] || { echo "--shape short is for processors: it asks for the ablation alone"; exit 2; }
SEEDS=${SEEDS:-0 1 2}
PARTS=${PARTS:-magnetic-tile PA_BDP01_TL PA_BFT01_TL PA_BRG03_TL PA_BTN01_RL PA_FLR01_TL PA_ZPB01_RL}
ABLATED=${ABLATED-magnetic-tile PA_BFT01_TL PA_FLR01_TL}
WORK=$BASE/anomaly-$SHAPE
export PYTHONPATH=$BASE/site:$BASE/shared/packages PYTHONUNBUFFERED=1 YOLO_OFFLINE=1 BASE OUT SLOTS SHAPE SEEDS PARTS ABLATED

there() { [ -d "$BASE/shared/data/$1" ] || [ -d "$BASE/shared/data/PIPED/$1" ]; }

# One line per chain, "part seed arms", in order of worth. The first of each part makes the diffusion model that its others wait for.
chains() {
    local seed part arm
    for seed in $SEEDS; do for part in $PARTS; do echo "$part $seed ours no-memory anchor ddpm-both"; done; done
    for seed in 0 1; do
        for arm in noise-both texture-both ddpm-coupled ddpm-cosine ddpm-segmentation noise-cosine noise-segmentation texture-cosine \
            texture-segmentation; do
            for part in $ABLATED; do echo "$part $seed $arm"; done
        done
    done
}

all() {
    chains | while read -r part rest; do if there "$part"; then echo "$part $rest"; fi; done |
        xargs -P "$SLOTS" -L 1 --process-slot-var=SLOT bash "$0" chain || true            # of a broken chain its log tells
    echo "all chains have ended"
}

chain() {
    local share=$(($(nproc) / SLOTS))
    share=$((share < 1 ? 1 : share))
    local first=$((SLOT * share % $(nproc)))
    taskset -cp $first-$((first + share - 1)) $$ >/dev/null         # loaders and threads follow from it
    BENCHMARK_COMMIT=$(cat "$BASE/commit") python3 -m tests.benchmarks.anomaly --shape "$SHAPE" --data "$WORK/data" \
        --parts "$1" --seeds "$2" --arms "${@:3}" >"$WORK/$1-$3-$2.log" 2>&1
}

running() { kill -0 "$(cat "$WORK/pid" 2>/dev/null)" 2>/dev/null; }

run() {
    bash tests/benchmarks/gpu.sh install
    cd "$BASE/main"
    mkdir -p "$WORK" "$OUT"
    running || { setsid bash tests/benchmarks/gpu_anomaly.sh all >>"$WORK/all.log" 2>&1 </dev/null & echo $! >"$WORK/pid"; }
    local end=$((SECONDS + $1))
    while running && ((SECONDS < end)); do sleep 1; done

    # At most 8 files of 16 MiB come back: figures and records; curves and logs of every run.
    local folder=anomaly-$SHAPE
    [ "$SHAPE" != cpu ] || folder=anomaly
    [ ! -d "tests/benchmarks/results/$folder" ] || tar czf "$OUT/results.tar.gz" -C tests/benchmarks/results "$folder"
    (cd "$WORK" && find . -name '*.log' -o -name log.txt -o -name metrics.jsonl -o -name job.json -o -name state.json -o -name progress.json \
        -o -name result.json -o -name model.json | tar czf "$OUT/runs.tar.gz" -T -)
    (nvidia-smi || true) >"$OUT/nvidia-smi.txt" 2>&1

    python3 - "tests/benchmarks/results/$folder" <<'PY'
import json, sys
from pathlib import Path
for file in sorted(Path(sys.argv[1]).glob("*.json")):
    told = json.loads(file.read_text())
    print(file.stem, *told["figures"].values(), told["seconds"], "s")
PY
    for log in "$WORK"/*.log; do
        if grep -q Error "$log"; then echo "== $log"; tail -n 15 "$log"; fi
    done
    if running; then echo "still running"; else tail -n 1 "$WORK/all.log"; fi
}

case ${1:-} in
    check) SHAPE=check SEEDS=0 SLOTS=4 exec bash "$0" run "${2:-300}" ;;
    run) run "${2:-500}" ;;
    all | chain | chains) "$@" ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
