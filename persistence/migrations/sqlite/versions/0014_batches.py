"""Batches, their items, and who leads; the queue of items beside that of jobs."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC. Money: USD, as decimal text. `opened`: 0 until all of its items are there.
_BATCHES = """
CREATE TABLE batches (
    organisation TEXT NOT NULL,
    id TEXT NOT NULL,
    opened INTEGER NOT NULL,
    state TEXT NOT NULL,
    mode TEXT NOT NULL,
    priority INTEGER NOT NULL,
    submitter TEXT NOT NULL,
    digest TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    concurrency INTEGER,
    deadline INTEGER,
    webhook TEXT,
    idempotency_key TEXT,
    labels TEXT NOT NULL,
    waiting INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    running INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    cost TEXT NOT NULL,
    unpriced INTEGER NOT NULL,
    run INTEGER NOT NULL,
    ended_at INTEGER,
    result_file TEXT,
    PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID
"""
_KEYS = """
CREATE UNIQUE INDEX batches_key ON batches (organisation, idempotency_key)
WHERE idempotency_key IS NOT NULL AND opened = 1
"""
_ACTIVE = "CREATE INDEX batches_active ON batches (organisation, id) WHERE ended_at IS NULL"
_ENDED = "CREATE INDEX batches_ended ON batches (ended_at) WHERE ended_at IS NOT NULL"
_ITEMS = """
CREATE TABLE batch_items (
    organisation TEXT NOT NULL,
    batch TEXT NOT NULL,
    place INTEGER NOT NULL,
    input TEXT,
    input_file TEXT,
    custom_id TEXT,
    state TEXT NOT NULL,
    due INTEGER,
    fence INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    completion_id TEXT,
    vendor_run INTEGER,
    result TEXT,
    result_file TEXT,
    error_code TEXT,
    error_message TEXT,
    cost TEXT,
    unpriced INTEGER NOT NULL,
    ended_at INTEGER
) STRICT
"""
_PLACES = "CREATE UNIQUE INDEX batch_items_place ON batch_items (organisation, batch, place)"
_STATES = "CREATE INDEX batch_items_state ON batch_items (organisation, batch, state, place)"
_DUE = "CREATE INDEX batch_items_due ON batch_items (organisation, batch, state, due, place) WHERE due IS NOT NULL"
_VENDOR_RUNS = """
CREATE TABLE batch_vendor_runs (
    organisation TEXT NOT NULL,
    batch TEXT NOT NULL,
    number INTEGER NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    key_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    vendor_id TEXT,
    polls INTEGER NOT NULL,
    poll_at INTEGER,
    cancelled INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    PRIMARY KEY (organisation, batch, number)
) STRICT, WITHOUT ROWID
"""
_LEADERS = """
CREATE TABLE leaders (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""
_QUEUE = "ALTER TABLE jobs ADD COLUMN queue TEXT NOT NULL DEFAULT ''"
_QUEUE_DUE = "CREATE INDEX jobs_queue_due ON jobs (queue, due, id)"


def upgrade() -> None:
    for statement in (
        *(_BATCHES, _KEYS, _ACTIVE, _ENDED, _ITEMS, _PLACES, _STATES, _DUE),
        *(_VENDOR_RUNS, _LEADERS, _QUEUE, _QUEUE_DUE),
    ):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX jobs_queue_due")
    op.execute("ALTER TABLE jobs DROP COLUMN queue")
    for table in ("leaders", "batch_vendor_runs", "batch_items", "batches"):
        op.execute(f"DROP TABLE {table}")
