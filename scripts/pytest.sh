#!/usr/bin/env bash
# Run pytest in an environment of its own: no setting, profile or journal of the user's is read or written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for name in $(compgen -e); do
    case $name in
        RECOVER_TEST_DATA) ;;
        PREFECT_* | RECOVER_* | PYTEST_* | GRAFANA_* | GF_* | PG* | MYSQL_* | PYTHONPATH | PYTHONHOME) unset "$name" ;;
    esac
done

home=$(mktemp -d -t recovery-tests.XXXXXX)
trap 'rm -rf "$home"' EXIT
export HOME="$home"
export XDG_STATE_HOME="$home/.local/state" XDG_CONFIG_HOME="$home/.config" XDG_CACHE_HOME="$home/.cache"
export PREFECT_HOME="$home/.prefect"
mkdir "$PREFECT_HOME"
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
export RECOVER_PATIENCE_SECONDS=22  # a target that stays away is given up sooner than by default
export TZ=UTC LC_ALL=C.UTF-8 NO_COLOR=1 COLUMNS=120
export PATH="$PWD/.venv/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

python -m pytest "$@"
