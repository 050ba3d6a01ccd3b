#!/bin/sh
# The ledger's database in PostgreSQL's own compressed form. PGHOST, PGUSER, PGPASSWORD and PGDATABASE say which; OUTPUT where to.
set -eu

pg_dump --format custom --compress 6 --no-privileges --lock-wait-timeout 60000 --file "$OUTPUT"
# What can't be listed could not be put back.
pg_restore --list "$OUTPUT" > /dev/null
