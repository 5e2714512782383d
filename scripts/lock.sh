#!/usr/bin/env bash
# Write requirements.lock: every package with its hashes, for every Python we promise, and no address.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly IMAGE_LOCK=deployments/image/requirements.lock

lock=$(mktemp requirements.XXXXXX.lock)
trap 'rm -f "$lock" "$lock.new"' EXIT

# compile LOCK ARGUMENT...: the versions in LOCK are kept while they fit.
compile() {
    local target=$1
    shift
    [[ ! -e $target ]] || cp "$target" "$lock"
    .venv/bin/uv pip compile pyproject.toml "$@" --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet \
        --output-file "$lock" >/dev/null
    {
        echo "# Made from pyproject.toml by \`make lock\`. Installed with --require-hashes; names no index."
        cat "$lock"
    } >"$lock.new"
    chmod 644 "$lock.new"
    mv "$lock.new" "$target"
}

compile requirements.lock --extra dev --extra server ${UPGRADE:+--upgrade}
compile "$IMAGE_LOCK" --extra server --constraint requirements.lock # what a container needs of it
