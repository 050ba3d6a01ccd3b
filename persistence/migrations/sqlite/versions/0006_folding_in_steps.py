"""Periods are folded in several transactions, and whole days by themselves."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Days of which a period has changed since they were summed up.
_OPEN_DAYS = """
CREATE TABLE usage_open_days (
    organisation TEXT NOT NULL,
    day INTEGER NOT NULL,
    PRIMARY KEY (organisation, day)
) STRICT, WITHOUT ROWID
"""
# What is being folded, and by whom: a period of four hours, or a day.
_CLAIMS = """
CREATE TABLE usage_claims (
    organisation TEXT NOT NULL,
    start INTEGER NOT NULL,
    of_day INTEGER NOT NULL,
    token INTEGER NOT NULL,
    PRIMARY KEY (organisation, start, of_day)
) STRICT, WITHOUT ROWID
"""
# An entry that comes while its period is folded is not in that fold.
_SPOILT = """
CREATE TRIGGER usage_claim_spoilt AFTER INSERT ON ledger_entries BEGIN
    DELETE FROM usage_claims
    WHERE organisation = NEW.organisation AND of_day = 0 AND start <= NEW.time AND start > NEW.time - 14400000;
END
"""


def upgrade() -> None:
    for statement in (_OPEN_DAYS, _CLAIMS, _SPOILT):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER usage_claim_spoilt")
    for table in ("usage_open_days", "usage_claims"):
        op.execute(f"DROP TABLE {table}")
