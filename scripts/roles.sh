#!/usr/bin/env bash
# Write deployments/kubernetes anew from what the tests of each recovery ask of the API.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mapfile -t tests < <(grep --recursive --files-with-matches --include 'test_*.py' \
    --extended-regexp 'kubernetes_runs|config_runs|volume_runs|url_for' tests/integration)
RIGHTS=record scripts/pytest.sh "${tests[@]}"
