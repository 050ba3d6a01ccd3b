#!/bin/sh
# Puts a dump (INPUT) into the empty database that PGHOST, PGUSER and PGDATABASE name. Tables belong to whom they belonged to: the
# role must be there, as init-primary.sh makes it, or the server could not write to what a superuser has put back. With TimescaleDB its own two functions
# stand around it (https://docs.tigerdata.com/self-hosted/latest/backup-and-restore/logical-backup/).
set -eu

run() { psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 -c "$1" > /dev/null; }

tables=$(psql --no-psqlrc -At -c "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
if [ "$tables" != 0 ]; then
  echo "restore-ledger: $PGDATABASE is not empty: make a new one" >&2
  exit 1
fi
timescale=$(pg_restore --list "$INPUT" | grep -c 'EXTENSION - timescaledb' || true)
if [ "$timescale" != 0 ]; then
  run 'CREATE EXTENSION IF NOT EXISTS timescaledb'
  run 'SELECT timescaledb_pre_restore()'
fi
pg_restore --exit-on-error --no-privileges --dbname "$PGDATABASE" "$INPUT"
if [ "$timescale" != 0 ]; then run 'SELECT timescaledb_post_restore()'; fi
psql --no-psqlrc -c ANALYZE > /dev/null
