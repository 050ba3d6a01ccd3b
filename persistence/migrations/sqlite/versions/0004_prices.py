"""Price rules of organisations."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


# Times: milliseconds since 1970, UTC. Prices and `percent`: exact decimals. A rule is an override, with `input` and
# `output`, or a discount, with `percent`.
_RULES = """
CREATE TABLE price_rules (
    id TEXT NOT NULL,
    organisation TEXT NOT NULL,
    provider TEXT,
    model TEXT,
    input TEXT,
    output TEXT,
    cached_input TEXT,
    cache_write TEXT,
    reasoning TEXT,
    percent TEXT,
    since INTEGER NOT NULL,
    until INTEGER,
    note TEXT,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (organisation, id),
    CHECK ((percent IS NULL) = (input IS NOT NULL AND output IS NOT NULL)),
    CHECK (provider IS NOT NULL OR model IS NULL)
) STRICT, WITHOUT ROWID
"""
_IMMUTABLE = """
CREATE TRIGGER price_rules_are_immutable BEFORE UPDATE OF
    id, organisation, provider, model, input, output, cached_input, cache_write, reasoning, percent,
    since, note, created_at, created_by
ON price_rules
BEGIN SELECT RAISE(ABORT, 'nothing of a price rule changes but its end'); END
"""


def upgrade() -> None:
    op.execute(_RULES)
    op.execute(_IMMUTABLE)


def downgrade() -> None:
    op.execute("DROP TABLE price_rules")
