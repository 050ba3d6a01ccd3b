"""Failures of jobs that are queued elsewhere."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC.
_JOB_FAILURES = """
CREATE TABLE job_failures (
    name TEXT NOT NULL PRIMARY KEY,
    failures INTEGER NOT NULL,
    failed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""
_FAILED_AT = "CREATE INDEX job_failures_failed_at ON job_failures (failed_at)"


def upgrade() -> None:
    op.execute(_JOB_FAILURES)
    op.execute(_FAILED_AT)


def downgrade() -> None:
    op.execute("DROP TABLE job_failures")
