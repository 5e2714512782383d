#!/usr/bin/env bash
# Write requirements.lock: every package with its hashes, for every Python we promise, and no address.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock=$(mktemp requirements.XXXXXX.lock)
trap 'rm -f "$lock"' EXIT
cp requirements.lock "$lock" # the versions in it are kept while they fit
.venv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet \
    ${UPGRADE:+--upgrade} --output-file "$lock" >/dev/null
{
    echo "# Made from pyproject.toml by \`make lock\`. Installed with --require-hashes; names no index."
    cat "$lock"
} >"$lock.new"
chmod 644 "$lock.new"
mv "$lock.new" requirements.lock
