#!/bin/sh
# Give a process of the stack what Prefect takes from variables only, read from files under /run/secrets.
# A process is given the files that it needs and no other.
set -eu
auth=""

secret() { [ -r "/run/secrets/$1" ] && cat "/run/secrets/$1"; }

if auth=$(secret prefect_auth); then
    export PREFECT_API_AUTH_STRING="$auth"
fi
if password=$(secret prefect_password); then # the server itself
    export PREFECT_SERVER_API_AUTH_STRING="$auth"
    export PREFECT_SERVER_DATABASE_CONNECTION_URL="postgresql+asyncpg://prefect:$password@postgres:5432/prefect"
fi
if key=$(secret prefect_encryption_key); then
    export PREFECT_SERVER_ENCRYPTION_KEY="$key"
fi
if password=$(secret redis_password); then
    export PREFECT_REDIS_MESSAGING_HOST=redis PREFECT_REDIS_MESSAGING_PASSWORD="$password"
    export PREFECT_SERVER_DOCKET_URL="redis://:$password@redis:6379/1"
fi

exec "$@"
