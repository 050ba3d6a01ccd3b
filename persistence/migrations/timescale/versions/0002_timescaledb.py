"""On TimescaleDB the ledger is a hypertable, and under its community licence continuous aggregates sum it up; entries
that come too late for the ledger are parked. A filled ledger is taken along."""

from alembic import op
from sqlalchemy import Connection, text

from persistence.migrations.timescale.sums import FACTS, IS_LAST, NUMBERS, SUMS
from persistence.timescale.policies import Edition

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What TimescaleDB's loader sets where it is preloaded: without that, making the extension would end the connection.
_FOUND = """
SELECT
    EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb'),
    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
        AND current_setting('timescaledb.disable_load', true) = 'off'
"""
_LICENCE = "SELECT current_setting('timescaledb.license', true)"

_PARKED = (
    "CREATE TABLE ledger_parked (LIKE ledger_entries, parked_at timestamptz NOT NULL DEFAULT now())",
    "ALTER TABLE ledger_parked ADD PRIMARY KEY (time, completion_id, attempt)",
)
_EDITION = "CREATE TABLE ledger_edition (edition text NOT NULL)"

# The primary key begins with the time already.
_HYPERTABLE = """
SELECT create_hypertable('ledger_entries', by_range('time', INTERVAL '7 days'),
    create_default_indexes => false, migrate_data => true)
"""

_WITHOUT_CELLS = (
    "DROP TRIGGER usage_counted ON ledger_entries",
    "DROP FUNCTION usage_count()",
    "DROP TABLE usage_cells",
)
# An aggregate can't look at other rows: each says itself whether it is its completion's last.
_MARKED = (
    "ALTER TABLE ledger_entries ADD COLUMN ends boolean NOT NULL DEFAULT false",
    f"UPDATE ledger_entries AS e SET ends = true WHERE e.attempt >= 0 AND {IS_LAST}",  # noqa: S608  # a text of ours
)
_MARKED_FACTS = FACTS | {"completions": "e.ends::int"}
_SELECTED = ", ".join(f"{_MARKED_FACTS[name]} AS {name}" for name in SUMS)
_VIEW = f"""
CREATE OR REPLACE VIEW usage_facts AS SELECT
    e.organisation, e.time, e.provider, e.model, e.outcome, e.principal, e.config, e.config_version,
    e.end_user, e.labels, {_SELECTED}
FROM ledger_entries AS e
"""  # noqa: S608

# Quarter hours whose sums lack entries that came late, until they are refreshed: reports read those from the entries.
# A version tells whether more of them came meanwhile.
_LATE = "CREATE TABLE usage_late (slot timestamptz PRIMARY KEY, version bigint NOT NULL)"

_NARROW = "provider, model, outcome"
_WIDE = f"{_NARROW}, principal, config, config_version"


def _aggregate(view: str, source: str, width: str, time: str, dimensions: str, facts: dict[str, str]) -> str:
    """Each with the kind of number that the cells of the other editions have."""
    kinds = {name: "::bigint" if name in NUMBERS else "" for name in SUMS}
    sums = ", ".join(f"sum({facts[name]}){kinds[name]} AS {name}" for name in SUMS)
    return f"""
        CREATE MATERIALIZED VIEW {view} WITH (
            timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
        ) AS
        SELECT e.organisation, time_bucket(INTERVAL '{width}', e.{time}) AS slot, {dimensions}, {sums}
        FROM {source} AS e GROUP BY 1, 2, {dimensions}
        WITH NO DATA
    """  # noqa: S608


_SAME = {name: f"e.{name}" for name in SUMS}
_AGGREGATES = (
    _aggregate("usage_quarters", "ledger_entries", "15 minutes", "time", _WIDE, _MARKED_FACTS),
    _aggregate("usage_hours", "usage_quarters", "1 hour", "slot", _NARROW, _SAME),
    _aggregate("usage_days", "usage_hours", "1 day", "slot", _NARROW, _SAME),
    *(f"CREATE INDEX ON {view} (organisation, slot)" for view in ("usage_quarters", "usage_hours", "usage_days")),
)
_COMPRESSED = """
ALTER TABLE ledger_entries SET (timescaledb.compress, timescaledb.compress_segmentby = 'organisation',
    timescaledb.compress_orderby = 'time DESC, completion_id, attempt')
"""


def upgrade() -> None:
    connection = op.get_bind()
    edition = _edition(connection)
    statements = [*_PARKED, _EDITION]
    if edition is Edition.COMMUNITY:
        statements += [*_WITHOUT_CELLS, *_MARKED, _VIEW, _LATE, _HYPERTABLE, *_AGGREGATES, _COMPRESSED]
    elif edition is Edition.APACHE:
        statements += [_HYPERTABLE]
    for statement in statements:
        connection.exec_driver_sql(statement)
    connection.execute(text("INSERT INTO ledger_edition VALUES (:edition)"), {"edition": str(edition)})


def _edition(connection: Connection) -> Edition:
    there, available = connection.exec_driver_sql(_FOUND).one()
    if not there and not available:
        return Edition.POSTGRESQL
    if not there:
        connection.exec_driver_sql("CREATE EXTENSION timescaledb")
    licence = connection.exec_driver_sql(_LICENCE).scalar_one()
    return Edition.COMMUNITY if licence == "timescale" else Edition.APACHE


def downgrade() -> None:
    raise NotImplementedError("a hypertable is no table again: restore what was there before")
