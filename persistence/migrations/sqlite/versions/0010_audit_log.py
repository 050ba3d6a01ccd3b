"""The audit log."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC; ids sort by them. `before_`, `after_`: JSON.
_EVENTS = """
CREATE TABLE audit_events (
    id TEXT NOT NULL,
    organisation TEXT NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    key_id TEXT,
    address TEXT,
    request_id TEXT NOT NULL,
    action TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    before_ TEXT,
    after_ TEXT,
    PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID
"""
_FILTERED_BY = ("action", "subject_id", "actor")
_NEVER_CHANGES = """
CREATE TRIGGER audit_events_never_change BEFORE UPDATE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'an event of the audit log never changes');
END
"""
_STAYS = """
CREATE TRIGGER audit_events_stay BEFORE DELETE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'an event of the audit log stays');
END
"""


def upgrade() -> None:
    op.execute(_EVENTS)
    for column in _FILTERED_BY:
        op.execute(f"CREATE INDEX audit_events_{column} ON audit_events (organisation, {column}, id)")
    op.execute(_NEVER_CHANGES)
    op.execute(_STAYS)


def downgrade() -> None:
    op.execute("DROP TABLE audit_events")
