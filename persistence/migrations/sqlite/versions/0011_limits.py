"""The limits that organisations have set."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC. Money: USD, as decimal text.
_LIMITS = """
CREATE TABLE limits (
    organisation TEXT NOT NULL,
    limited TEXT NOT NULL,
    name TEXT NOT NULL,
    requests_per_minute INTEGER,
    tokens_per_minute INTEGER,
    usd_per_day TEXT,
    usd_per_month TEXT,
    streams INTEGER,
    updated_at INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    PRIMARY KEY (organisation, limited, name)
) STRICT, WITHOUT ROWID
"""


def upgrade() -> None:
    op.execute(_LIMITS)


def downgrade() -> None:
    op.execute("DROP TABLE limits")
