"""Webhooks, their events and deliveries; and at how much of a budget is told of."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC. Lists: JSON.
_STATEMENTS = (
    """
    CREATE TABLE webhooks (
        organisation TEXT NOT NULL,
        id TEXT NOT NULL,
        url TEXT NOT NULL,
        events TEXT NOT NULL,
        description TEXT,
        enabled INTEGER NOT NULL,
        disabled_reason TEXT,
        sealed TEXT NOT NULL,
        former TEXT,
        former_until INTEGER,
        revision INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        updated_at INTEGER NOT NULL,
        PRIMARY KEY (organisation, id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE webhook_events (
        organisation TEXT NOT NULL,
        id TEXT NOT NULL,
        type TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (organisation, id)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX webhook_events_at ON webhook_events (at)",
    """
    CREATE TABLE webhook_deliveries (
        organisation TEXT NOT NULL,
        id TEXT NOT NULL,
        webhook_id TEXT NOT NULL,
        event_id TEXT NOT NULL,
        type TEXT NOT NULL,
        body TEXT NOT NULL,
        state TEXT NOT NULL,
        due_at INTEGER,
        attempts INTEGER NOT NULL,
        attempts_at_most INTEGER NOT NULL,
        status INTEGER,
        reason TEXT,
        attempted_at INTEGER,
        created_at INTEGER NOT NULL,
        PRIMARY KEY (organisation, id)
    ) STRICT
    """,
    "CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at, id) WHERE due_at IS NOT NULL",
    "CREATE INDEX webhook_deliveries_of ON webhook_deliveries (organisation, webhook_id, id)",
    "CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (organisation, webhook_id) WHERE due_at IS NOT NULL",
    "CREATE INDEX webhook_deliveries_made ON webhook_deliveries (created_at)",
    "ALTER TABLE limits ADD COLUMN alert_at TEXT",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in ("webhook_deliveries", "webhook_events", "webhooks"):
        op.execute(f"DROP TABLE {table}")
    op.execute("ALTER TABLE limits DROP COLUMN alert_at")
