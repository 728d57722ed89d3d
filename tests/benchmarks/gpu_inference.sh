#!/usr/bin/env bash
# Inspection on a machine that has a GPU and PyTorch, but neither a network nor OpenVINO; `yolo predict` there on the same GPU, in half precision.
#
#   python -m tests.benchmarks.carry NEU-DET                 where there is a network: packages and pictures, as for gpu.sh
#   bash tests/benchmarks/gpu_inference.sh check             there: few pictures, one round: what breaks
#   bash tests/benchmarks/gpu_inference.sh run               there: about four minutes; $OUT/inference-gpu.json is the result
#
# Not run yet: nobody knows what it comes to. "OpenVINO alone" in the result means the bare forward on the GPU.
set -euo pipefail

BASE=${BASE:-/tmp/gpu}
OUT=${OUT:-$BASE/out}
export PYTHONPATH=$BASE/site PYTHONUNBUFFERED=1 YOLO_OFFLINE=1 BASE OUT

run() {
    bash tests/benchmarks/gpu.sh install
    cd "$BASE/main"
    python3 -c 'import onnx, torch; assert torch.cuda.is_available(), "no GPU"'
    [ -d .git ] || { git init -q && git -c user.name=x -c user.email=x@x commit -q --allow-empty -m "$(cat "$BASE/commit")"; }
    python3 -m tests.benchmarks.inference --imgsz 224 640 --only pipeline yolo_torch raw --json "$@"
    cp tests/benchmarks/results/inference-gpu.json "$OUT"
}

case ${1:-} in
    check) run --images 200 --rounds 1 ;;
    run) run --images 4000 --rounds 5 ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
