#!/usr/bin/env bash
# Write the secrets of docker-compose.yml into secrets/, and into .env the account that may read them.
# What is there already is kept; a second run changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 077

readonly FOLDER=secrets

# As root the containers run as an account that owns nothing else; else as whoever calls this.
if ((EUID == 0)); then
    uid=10001 gid=10001
else
    uid=$(id -u) gid=$(id -g)
fi

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# write NAME VALUE: unless it is there.
write() {
    [[ -s $FOLDER/$1 ]] && return
    printf '%s' "$2" >"$FOLDER/$1.new"
    mv "$FOLDER/$1.new" "$FOLDER/$1"
    echo "wrote $FOLDER/$1" >&2
}

mkdir -p "$FOLDER/targets"
for name in postgres_password prefect_password journal_password redis_password; do
    write "$name" "$(random)"
done
write prefect_auth "operator:$(random)"
write prefect_encryption_key "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')"
write alerts_token "$(random)"
((EUID != 0)) || chown -R "$uid:$gid" "$FOLDER"

touch .env
for line in "RECOVER_UID=$uid" "RECOVER_GID=$gid"; do
    grep -q "^${line%%=*}=" .env || echo "$line" >>.env
done
echo "The user and password of the UI are in $FOLDER/prefect_auth; keys of targets belong in $FOLDER/targets." >&2
