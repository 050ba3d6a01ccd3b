#!/bin/sh
# Run once, when the primary's folder is made: the application's own role and database, and the replica's way in.
set -eu

psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  -v application="$APPLICATION_PASSWORD" -v replication="$REPLICATION_PASSWORD" -v backup="$BACKUP_PASSWORD" <<'SQL'
CREATE ROLE ai_middleware LOGIN PASSWORD :'application' CONNECTION LIMIT 200;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication' CONNECTION LIMIT 10;
CREATE ROLE backup LOGIN PASSWORD :'backup' CONNECTION LIMIT 5;
GRANT pg_read_all_data TO backup;
-- A reader of the replica sees how far behind it is.
GRANT pg_monitor TO ai_middleware;
CREATE DATABASE ai_middleware OWNER ai_middleware;
REVOKE ALL ON DATABASE ai_middleware FROM PUBLIC;
GRANT CONNECT ON DATABASE ai_middleware TO backup;
SQL

# The extension is the superuser's to make; where the image has none, this is plain PostgreSQL.
psql --username "$POSTGRES_USER" --dbname ai_middleware -c 'CREATE EXTENSION IF NOT EXISTS timescaledb' ||
  echo "init-primary: without TimescaleDB, the ledger is on plain PostgreSQL" >&2

cat >> "$PGDATA/pg_hba.conf" <<'HBA'
host replication replicator all scram-sha-256
HBA
cat >> "$PGDATA/postgresql.conf" <<'CONF'
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
# A replica that is away for long is made anew, rather than that the primary's disk fills.
max_slot_wal_keep_size = 8GB
hot_standby = on
synchronous_commit = on
password_encryption = scram-sha-256
CONF
