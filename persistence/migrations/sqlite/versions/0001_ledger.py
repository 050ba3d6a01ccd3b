"""The ledger of attempts."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# The key begins with the completion, so that one tree serves both the key and the look-up of a completion.
# `time`: milliseconds since 1970, UTC. `cost`: an exact decimal. `labels`: JSON, one pair a line.
_TABLE = """
CREATE TABLE ledger_entries (
    time INTEGER NOT NULL,
    completion_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    organisation TEXT NOT NULL,
    principal TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    end_user TEXT,
    config TEXT,
    config_version INTEGER,
    idempotency_key TEXT,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost TEXT,
    cost_source TEXT NOT NULL,
    price_version TEXT,
    latency_ms INTEGER NOT NULL,
    time_to_first_token_ms INTEGER,
    finish_reason TEXT,
    error_code TEXT,
    estimated INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    streamed INTEGER NOT NULL,
    labels TEXT NOT NULL,
    PRIMARY KEY (completion_id, attempt, time)
) STRICT, WITHOUT ROWID
"""


def upgrade() -> None:
    op.execute(_TABLE)
    op.execute("CREATE INDEX ledger_by_time ON ledger_entries (organisation, time, completion_id, attempt)")
    op.execute("""
        CREATE INDEX ledger_by_idempotency_key ON ledger_entries (organisation, idempotency_key, time, completion_id)
        WHERE idempotency_key IS NOT NULL
    """)


def downgrade() -> None:
    op.execute("DROP TABLE ledger_entries")
