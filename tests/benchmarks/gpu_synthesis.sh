#!/usr/bin/env bash
# The synthesis benchmark on a machine that has a GPU and PyTorch, but neither a network nor our other packages.
#
#   python -m tests.benchmarks.carry synthesis               where there is a network; says what travels with which command
#   bash tests/benchmarks/gpu_synthesis.sh check             there: every arm once, a few steps: what breaks, how long it takes
#   bash tests/benchmarks/gpu_synthesis.sh run [SECONDS]     there: starts what is missing or finds it running, waits, packs
#
# `run 1` with the packages, which come first, then `run` with each of the others that `carry` names.
# Trainings belong to a process session of their own, so they go on between two calls; those whose data has not come along yet wait for
# it. What is done lies in $OUT/results.tar.gz: unpack it into tests/benchmarks/results/ and commit; what is there is not run again.
# What arms share (priors, adapters) is made anew on every machine. Knobs: SLOTS, SHAPE, PARTS, SEEDS (empty: the benchmark's own), WAIT.
set -euo pipefail

BASE=${BASE:-/tmp/gpu}
OUT=${OUT:-$BASE/out}
SLOTS=${SLOTS:-8}                          # chains at once; each gets its share of the cores
SHAPE=${SHAPE:-gpu}
PARTS=${PARTS:-kid recognition tail detection}
SEEDS=${SEEDS:-}
WAIT=${WAIT:-1500}                         # seconds that chains wait for data
WORK=$BASE/synthesis-$SHAPE
export PYTHONPATH=$BASE/site:$BASE/shared/packages PYTHONUNBUFFERED=1 YOLO_OFFLINE=1 HF_HUB_OFFLINE=1 BASE OUT SLOTS SHAPE PARTS SEEDS WAIT

# One line per chain, "data part seed arms", in order of worth. What needs no data but NEU-DET can begin before the rest is there.
# The first of each part makes what its others wait for.
chains() {
    local seed arm n
    asked() { case " $PARTS " in *" $1 "*) true ;; *) false ;; esac }
    ! asked kid && ! asked recognition && ! asked detection || echo "all shared steel"
    ! asked tail || echo "all shared tile"
    if asked recognition; then
        for seed in ${SEEDS:-0 1 2 3 4}; do echo "NEU-DET recognition $seed 10-aug 10-real 10-paste 10-scratch"; done
        for seed in ${SEEDS:-0 1 2 3 4}; do echo "all recognition $seed 10-prior 10-prior-1 10-prior-4 10-prior-8"; done
    fi
    if asked kid; then
        for seed in ${SEEDS:-0 1 2}; do
            for arm in image-both noise-both image-prompt noise-prompt image-tokens noise-tokens image-lora noise-lora; do echo "all kid $seed $arm"; done
        done
    fi
    ! asked detection || for seed in ${SEEDS:-0 1 2}; do echo "all detection $seed plain prior paste"; done
    ! asked tail || for seed in ${SEEDS:-0 1 2}; do echo "all tail $seed plain prior paste perturb"; done
    if asked recognition; then
        for n in 5 20; do for seed in ${SEEDS:-0 1 2 3 4}; do echo "all recognition $seed $n-aug $n-prior $n-paste $n-scratch $n-real"; done; done
    fi
}

there() {
    local part
    for part in NEU-DET $([ "$1" != all ] || echo PIPED magnetic-tile); do
        [ -e "$BASE/$part.tar.xz" ] || return 1                     # lies there once it is unpacked
    done
}

# Chains whose data is there, at once; the others when theirs has come.
fed() {
    local end=$((SECONDS + WAIT)) data rest
    chains >"$WORK/left"
    while [ -s "$WORK/left" ]; do
        : >"$WORK/later"
        while read -r data rest; do
            if there "$data"; then echo "$rest"; else echo "$data $rest" >>"$WORK/later"; fi
        done <"$WORK/left"
        mv "$WORK/later" "$WORK/left"
        ((SECONDS < end)) || break             # after one look at least
        [ ! -s "$WORK/left" ] || sleep 2
    done
}

all() {
    fed | xargs -P "$SLOTS" -L 1 --process-slot-var=SLOT bash "$0" chain || true          # of a broken chain its log tells
    echo "all chains have ended"
}

chain() {
    local share=$(($(nproc) / SLOTS))
    share=$((share < 1 ? 1 : share))
    local first=$((SLOT * share % $(nproc)))
    taskset -cp $first-$((first + share - 1)) $$ >/dev/null         # loaders and threads follow from it
    if [ "$1" = shared ]; then bench --shared "$2" >"$WORK/shared-$2.log" 2>&1; else
        bench --parts "$1" --seeds "$2" --arms "${@:3}" >"$WORK/$1-$3-$2.log" 2>&1
    fi
}

bench() {
    BENCHMARK_COMMIT=$(cat "$BASE/commit") python3 -m tests.benchmarks.synthesis --shape "$SHAPE" --data "$WORK/data" "$@"
}

running() { kill -0 "$(cat "$WORK/pid" 2>/dev/null)" 2>/dev/null; }

run() {
    bash tests/benchmarks/gpu.sh install
    cd "$BASE/main"
    mkdir -p "$WORK" "$OUT"
    running || { setsid bash tests/benchmarks/gpu_synthesis.sh all >>"$WORK/all.log" 2>&1 </dev/null & echo $! >"$WORK/pid"; }
    local end=$((SECONDS + $1))
    while running && ((SECONDS < end)); do sleep 1; done

    # At most 8 files of 16 MiB come back: figures and records; curves, logs and previews of every run.
    local folder=synthesis-$SHAPE
    [ "$SHAPE" != cpu ] || folder=synthesis
    [ ! -d "tests/benchmarks/results/$folder" ] || tar czf "$OUT/results.tar.gz" -C tests/benchmarks/results "$folder"
    (cd "$WORK" && find . -name '*.log' -o -name log.txt -o -name metrics.jsonl -o -name job.json -o -name state.json -o -name progress.json \
        -o -name result.json -o -name samples.png | tar czf - -T - | split -b 15M - "$OUT/runs.tar.gz.")
    (nvidia-smi || true) >"$OUT/nvidia-smi.txt" 2>&1

    python3 - "tests/benchmarks/results/$folder" <<'PY'
import json, sys
from pathlib import Path
for file in sorted(Path(sys.argv[1]).glob("*.json")):
    told = json.loads(file.read_text())
    print(file.stem, *(f"{k} {told['figures'][k]}" for k in ("kid", "accuracy", "map50") if k in told["figures"]), told["seconds"], "s")
PY
    for log in "$WORK"/*.log; do
        if grep -q Error "$log"; then echo "== $log"; tail -n 15 "$log"; fi
    done
    if running; then echo "still running"; else tail -n 1 "$WORK/all.log"; fi
}

case ${1:-} in
    check) SHAPE=check SEEDS=0 SLOTS=4 exec bash "$0" run "${2:-500}" ;;
    run) run "${2:-500}" ;;
    all | chain | chains | fed) "$@" ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
