#!/usr/bin/env bash
# Ask every linter, even when one has said no already; fail if any did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PATH="$PWD/.venv/bin:$PATH"

failed=()
ask() {
    printf '— %s\n' "$*"
    "$@" || failed+=("$1 ${2:-}")
}

ask ruff check .
ask ruff format --check .
ask mypy
ask lint-imports
ask codespell

if ((${#failed[@]})); then
    printf 'lint: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
