"""What a vendor's batch holds of budgets."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE batch_vendor_runs ADD COLUMN reserved TEXT NOT NULL DEFAULT '[]'")
    op.execute("ALTER TABLE batch_vendor_runs ADD COLUMN holds INTEGER NOT NULL DEFAULT 0")


def downgrade() -> None:
    op.execute("ALTER TABLE batch_vendor_runs DROP COLUMN holds")
    op.execute("ALTER TABLE batch_vendor_runs DROP COLUMN reserved")
