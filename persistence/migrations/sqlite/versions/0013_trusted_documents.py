"""The documents that the operator has registered."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC.
_TRUSTED_DOCUMENTS = """
CREATE TABLE trusted_documents (
    sha256 TEXT NOT NULL PRIMARY KEY,
    text TEXT NOT NULL,
    name TEXT NOT NULL,
    registered_at INTEGER NOT NULL
) STRICT
"""


def upgrade() -> None:
    op.execute(_TRUSTED_DOCUMENTS)


def downgrade() -> None:
    op.execute("DROP TABLE trusted_documents")
