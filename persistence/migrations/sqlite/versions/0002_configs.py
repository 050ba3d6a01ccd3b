"""Configs and their versions."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


# Times: milliseconds since 1970, UTC. `draft` and `content`: JSON; `model`, `labels` and `description` repeat what of
# the draft is looked for: `labels` as JSON with a pair on each line, `description` case-folded.
_CONFIGS = """
CREATE TABLE configs (
    id TEXT NOT NULL,
    organisation TEXT NOT NULL,
    slug TEXT NOT NULL,
    revision INTEGER NOT NULL,
    draft TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    published INTEGER,
    archived_at INTEGER,
    model TEXT NOT NULL,
    labels TEXT NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (organisation, id),
    UNIQUE (organisation, slug)
) STRICT
"""
_VERSIONS = """
CREATE TABLE config_versions (
    organisation TEXT NOT NULL,
    config_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    content TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (organisation, config_id, number)
) STRICT
"""
_IMMUTABLE = """
CREATE TRIGGER config_versions_are_immutable BEFORE UPDATE ON config_versions
BEGIN SELECT RAISE(ABORT, 'a published version never changes'); END
"""


def upgrade() -> None:
    op.execute(_CONFIGS)
    op.execute("CREATE INDEX configs_by_update ON configs (organisation, updated_at, slug)")
    op.execute(_VERSIONS)
    op.execute(_IMMUTABLE)


def downgrade() -> None:
    op.execute("DROP TABLE config_versions")
    op.execute("DROP TABLE configs")
