#!/bin/sh
# A replica's first start: the primary's data, and how to follow it. A folder that was filled halfway is filled anew.
set -eu

# Beside the folder, not in it: a primary that was a replica once has one of its own, which would be copied first.
done="$PGDATA.cloned"
if [ -s "$done" ]; then exit 0; fi
rm -rf "$PGDATA"
export PGHOST="$PRIMARY_HOST" PGPORT="${PRIMARY_PORT:-5432}" PGUSER=replicator PGPASSWORD="$REPLICATION_PASSWORD"
until pg_isready --quiet; do sleep 1; done
# A new slot: of one that was left behind by a lost replica the WAL may be gone, and a primary that was a replica has none.
psql --no-psqlrc --quiet 'dbname=postgres replication=true' -c 'DROP_REPLICATION_SLOT replica WAIT' || echo "there was none"
pg_basebackup --pgdata "$PGDATA" --no-password --create-slot --slot replica --write-recovery-conf --wal-method stream --checkpoint fast
chmod 700 "$PGDATA"
echo yes > "$done"
