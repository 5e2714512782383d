#!/usr/bin/env bash
# Install what is missing and nothing else: programs by apt where that is allowed, and .venv from the lock.
# A second run changes nothing and takes no time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # where servers lie; Debian leaves it out for users

readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_MARK="# Placed by scripts/setup.sh while it installs; safe to remove."
readonly STAMP=.venv/setup-stamp
readonly ROOT=.venv/setup-root # a moved environment is no environment: its scripts name the old place

say() { printf 'setup: %s\n' "$*" >&2; }

# --- Programs -------------------------------------------------------------------------------------

has() { type -P "$1" >/dev/null; }
has_postgres() { has postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
has_account() { ((EUID != 0)) || id "$1" >/dev/null 2>&1; } # servers started by root drop to these

# Print the Debian packages that are missing, one a line.
missing_packages() {
    {
        usable_python >/dev/null || printf '%s\n' python3 python3-venv
        { has mariadbd && has mariadb-install-db && has_account mysql; } || echo mariadb-server
        { has mariadb && has mariadb-dump; } || echo mariadb-client
        { has_postgres && has_account postgres; } || echo postgresql
        { has influxd && has_account influxdb; } || echo influxdb
        { has prometheus-alertmanager || has alertmanager; } || echo prometheus-alertmanager
        has sshd || echo openssh-server
        { has ssh && has ssh-keygen && has sftp; } || echo openssh-client
        has systemd-nspawn || echo systemd-container # hosts with systemd, for the tests,
        has mmdebstrap || echo mmdebstrap            # their root file system,
        has ip || echo iproute2                      # the network between them,
        has nft || echo nftables                     # and its partitions
    } | sort -u
}

# Print a Python of 3.11 or later that can make environments; PYTHON=/path comes first.
usable_python() {
    local name candidate
    local test='import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))'
    if "$PWD/.venv/bin/python" -c "$test" 2>/dev/null; then
        echo "$PWD/.venv/bin/python"
        return
    fi
    for name in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.14 python3; do
        while IFS= read -r candidate; do
            [[ $candidate == "$PWD/.venv/"* ]] && continue
            if "$candidate" -c "$test" 2>/dev/null; then
                echo "$candidate"
                return
            fi
        done < <(type -aP "$name")
    done
    return 1
}

# Say how this account becomes root without being asked for a password: "", "sudo", or failure.
way_to_root() {
    ((EUID == 0)) && return
    has sudo && sudo -n true 2>/dev/null && echo "sudo -n"
}

install_packages() {
    local root=$1 package unit log
    shift
    local -a units=()
    say "installing $*"
    if [[ ! -e $POLICY ]] || grep -qF "$POLICY_MARK" "$POLICY"; then
        # Without it apt starts every server it installs, on the ports of the real ones.
        # shellcheck disable=SC2064 # what root is now, not later
        trap "$root rm -f $POLICY" EXIT
        printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" | $root tee "$POLICY" >/dev/null || return 1
        $root chmod 755 "$POLICY" || return 1
    fi
    for package in "$@"; do
        case $package in
            mariadb-server) unit=mariadb.service ;;
            postgresql) unit=postgresql.service ;;
            influxdb) unit=influxdb.service ;;
            prometheus-alertmanager) unit=prometheus-alertmanager.service ;;
            openssh-server) unit=ssh.service ;;
            *) continue ;;
        esac
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || units+=("$unit")
    done
    # shellcheck disable=SC2206 # root is two words or none
    local -a apt=($root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    log=$(mktemp)
    # --no-remove: rather fail than take away a server that is in the way, such as MySQL.
    if ! { "${apt[@]}" update && "${apt[@]}" install --yes --no-remove --no-install-recommends "$@"; } >"$log" 2>&1; then
        say "apt-get failed; the end of what it said:"
        tail -n 15 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
    for unit in "${units[@]}"; do # the suite starts its own; ours must not come up at the next boot
        $root systemctl disable "$unit" >/dev/null 2>&1 || true
    done
    if [[ -e $POLICY ]] && grep -qF "$POLICY_MARK" "$POLICY"; then
        $root rm -f "$POLICY"
    fi
    trap - EXIT
}

provide_programs() {
    local root
    local -a missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    if has apt-get && root=$(way_to_root) && install_packages "$root" "${missing[@]}"; then
        hash -r
        mapfile -t missing < <(missing_packages)
        ((${#missing[@]})) || return 0
    fi
    say "missing: ${missing[*]} (names of Debian packages)"
    if has apt-get; then
        say "as root: apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    else
        say "install them the way of this system, with their programs on PATH, and run this again"
    fi
    usable_python >/dev/null || exit 1
    if [[ -n ${CI:-} ]]; then
        say "CI is set: not going on without them"
        exit 1
    fi
    say "going on: tests that need them are skipped, and the demo needs mariadb-server"
}

# --- The environment ------------------------------------------------------------------------------

fingerprint() {
    pwd -P
    .venv/bin/python -V || return 1
    cksum requirements.lock pyproject.toml
}

is_ready() { [[ -f $STAMP && $(fingerprint 2>/dev/null) == "$(<"$STAMP")" ]]; }

provide_environment() {
    local python conflicts
    # Settings of the user's that would send the packages elsewhere.
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_HASHES
    export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
    if ! .venv/bin/python -V >/dev/null 2>&1 || [[ ! -f $ROOT || $(<"$ROOT") != "$(pwd -P)" ]]; then
        rm -rf .venv
        python=$(usable_python) || {
            say "no Python of 3.11 or later that can make environments (python3-venv) is on PATH"
            exit 1
        }
        say "making .venv with $python"
        "$python" -m venv .venv
        pwd -P >"$ROOT"
    fi
    rm -f "$STAMP"
    say "installing requirements.lock"
    .venv/bin/python -m pip install -qq --require-hashes --no-deps -r requirements.lock
    .venv/bin/python -m pip install -qq --no-deps --no-build-isolation --editable .
    conflicts=$(.venv/bin/python -m pip check) || {
        say "requirements.lock does not fit $(.venv/bin/python -V): $conflicts"
        exit 1
    }
    fingerprint >"$STAMP"
    say "ready: .venv, $(.venv/bin/python -V)"
}

exec 9<"${BASH_SOURCE[0]}"
if has flock; then flock 9; fi # two makes at once: the second finds the work done
provide_programs
is_ready || provide_environment
