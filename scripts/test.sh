#!/usr/bin/env bash
# The whole suite in parallel. Up to five tests on real machines that fail beside all others are run
# once more, alone: what passes then was short of the machine and is named, what fails is broken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

FAILED=.pytest_cache/v/cache/lastfailed
MOST=5
TESTS_FAILED=1

code=0
scripts/pytest.sh --cache-clear --numprocesses "${WORKERS:-$(($(nproc) + 1))}" --dist worksteal "$@" || code=$?
[[ $code == "$TESTS_FAILED" ]] || exit "$code"

names=$(.venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$FAILED")
if (($(wc -l <<<"$names") > MOST)) || grep -qvE '^tests/(integration|faults)/.*::' <<<"$names"; then
    exit "$code"
fi
printf '\nOnce more, alone:\n%s\n\n' "$names"
scripts/pytest.sh --last-failed
printf '\nFailed beside the others, and passed alone:\n%s\n' "$names"
