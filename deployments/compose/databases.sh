#!/usr/bin/env bash
# Run once by the Postgres image on an empty volume: a role and a database each for Prefect and for the journal.
set -euo pipefail

for name in prefect journal; do
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="$name" --username "${POSTGRES_USER:-postgres}" <<SQL
\set password \`cat /run/secrets/${name}_password\`
create role :"name" login password :'password';
create database :"name" owner :"name" encoding 'UTF8' template template0;
revoke all on database :"name" from public;
SQL
done
