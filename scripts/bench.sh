#!/usr/bin/env bash
# Install the peers into an environment of their own, and run the benchmarks beside them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

peers=.bench
if [[ ! -f $peers/requirements.txt ]] || ! cmp -s bench/requirements.txt $peers/requirements.txt; then
    rm -rf $peers
    .venv/bin/python -m venv $peers
    $peers/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
    cp bench/requirements.txt $peers/requirements.txt
fi
export PEERS_PYTHON="$PWD/$peers/bin/python"
.venv/bin/python -m bench
