#!/bin/sh
# A replica's first start: the primary's data, and how to follow it. A folder that was filled halfway is filled anew.
set -eu

if [ -s "$PGDATA/.cloned" ]; then exit 0; fi
rm -rf "$PGDATA"
until pg_isready --host "$PRIMARY_HOST" --port "${PRIMARY_PORT:-5432}" --quiet; do sleep 1; done
PGPASSWORD="$REPLICATION_PASSWORD" pg_basebackup --pgdata "$PGDATA" --host "$PRIMARY_HOST" --port "${PRIMARY_PORT:-5432}" \
  --username replicator --no-password --slot replica --write-recovery-conf --wal-method stream --checkpoint fast
chmod 700 "$PGDATA"
echo done > "$PGDATA/.cloned"
