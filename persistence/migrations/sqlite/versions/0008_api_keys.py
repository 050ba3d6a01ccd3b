"""API keys, and their digests."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Times: milliseconds since 1970, UTC. `grant_`: JSON.
_KEYS = """
CREATE TABLE api_keys (
    organisation TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    hint TEXT NOT NULL,
    grant_ TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    revoked_by TEXT,
    last_used_at INTEGER,
    PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID
"""
# `ends_at`: from then on the digest opens nothing; null where it is the key's present one.
_DIGESTS = """
CREATE TABLE api_key_digests (
    digest TEXT NOT NULL PRIMARY KEY,
    organisation TEXT NOT NULL,
    key_id TEXT NOT NULL,
    ends_at INTEGER
) STRICT, WITHOUT ROWID
"""
_OF_A_KEY = "CREATE INDEX api_key_digests_key ON api_key_digests (organisation, key_id)"
_ENDED = "CREATE INDEX api_key_digests_ends_at ON api_key_digests (ends_at) WHERE ends_at IS NOT NULL"


def upgrade() -> None:
    for statement in (_KEYS, _DIGESTS, _OF_A_KEY, _ENDED):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE api_key_digests")
    op.execute("DROP TABLE api_keys")
