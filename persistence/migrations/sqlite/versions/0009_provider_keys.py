"""Organisations' own keys at providers, sealed."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC.
_KEYS = """
CREATE TABLE provider_keys (
    organisation TEXT NOT NULL,
    provider TEXT NOT NULL,
    sealed TEXT NOT NULL,
    hint TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (organisation, provider)
) STRICT, WITHOUT ROWID
"""


def upgrade() -> None:
    op.execute(_KEYS)


def downgrade() -> None:
    op.execute("DROP TABLE provider_keys")
