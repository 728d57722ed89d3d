#!/bin/sh
# Install what requirements.lock names into a new virtual environment: deploy/install.sh VENV cpu|gpu
#
#   gpu   the lock as it is, hashes checked: PyTorch with CUDA, about 5 GB
#   cpu   the same without CUDA, about 4 GB less. PyTorch's builds for processors ("+cpu") are on an index of their own, which pip must
#         know (PIP_EXTRA_INDEX_URL, or a wheelhouse that has them); their hashes are not in the lock. All else is as locked.
#
# pip's own variables are heeded. PYTHON: which one (python3). WHEELHOUSE: a folder of wheels; then no index is asked.
set -eu
venv=$1 torch=$2 here=$(cd "$(dirname "$0")" && pwd)
lock=$here/requirements.lock
[ -f "$lock" ] || lock=$here/../requirements.lock

"${PYTHON:-python3}" -m venv "$venv"
install() { "$venv/bin/python" -m pip install --disable-pip-version-check --no-cache-dir --no-deps "$@"; }
if [ -n "${WHEELHOUSE:-}" ]; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$WHEELHOUSE"
fi

case $torch in
gpu) install --require-hashes -r "$lock" ;;
cpu)
    # A requirement is a line and those after it that are indented; left out are PyTorch and what only CUDA needs.
    rest=$(mktemp)
    awk '/^[^ ]/ {keep = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==/} keep' "$lock" > "$rest"
    wanted=$(sed -nE 's/^(torch|torchvision)==([^ ;+]+).*/\1==\2+cpu/p' "$lock")
    # shellcheck disable=SC2086
    install $wanted || {
        echo "pip finds no builds of PyTorch for processors ($(echo $wanted)). Tell it an index that has them, PIP_EXTRA_INDEX_URL," \
             "or install with CUDA: see docs/deploy.md." >&2
        exit 1
    }
    install --require-hashes -r "$rest"
    rm "$rest" ;;
*) echo "cpu or gpu, not $torch" >&2; exit 2 ;;
esac
