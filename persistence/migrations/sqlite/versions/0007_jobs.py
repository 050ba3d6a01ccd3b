"""The embedded queue."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC. `due`: not before then. Null: it is parked.
_JOBS = """
CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    reason TEXT,
    due INTEGER
) STRICT, WITHOUT ROWID
"""
_DUE = "CREATE INDEX jobs_due ON jobs (due, id)"


def upgrade() -> None:
    op.execute(_JOBS)
    op.execute(_DUE)


def downgrade() -> None:
    op.execute("DROP TABLE jobs")
