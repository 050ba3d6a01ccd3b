"""Who made a correction, when and why."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Of corrections alone. `corrected_at`: milliseconds since 1970, UTC.
_COLUMNS = {"corrected_by": "TEXT", "corrected_at": "INTEGER", "note": "TEXT"}


def upgrade() -> None:
    for name, kind in _COLUMNS.items():
        op.execute(f"ALTER TABLE ledger_entries ADD COLUMN {name} {kind}")


def downgrade() -> None:
    for name in _COLUMNS:
        op.execute(f"ALTER TABLE ledger_entries DROP COLUMN {name}")
