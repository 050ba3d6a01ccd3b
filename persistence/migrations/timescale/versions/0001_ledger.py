"""The ledger of attempts, and its usage summed up as it is booked."""

from alembic import op

from persistence.migrations.timescale.sums import EXACT, FACTS, NUMBERS, SUMS

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE ledger_entries (
    time timestamptz NOT NULL,
    completion_id text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    end_user text COLLATE "C",
    config text COLLATE "C",
    config_version bigint,
    idempotency_key text COLLATE "C",
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cost numeric,
    cost_source text COLLATE "C" NOT NULL,
    price_version text COLLATE "C",
    latency_ms bigint NOT NULL,
    time_to_first_token_ms bigint,
    finish_reason text COLLATE "C",
    error_code text COLLATE "C",
    estimated boolean NOT NULL,
    cached boolean NOT NULL,
    streamed boolean NOT NULL,
    labels jsonb NOT NULL,
    corrects integer,
    settles_cost boolean NOT NULL,
    settles_estimate boolean NOT NULL,
    corrected_by text COLLATE "C",
    corrected_at timestamptz,
    note text COLLATE "C",
    PRIMARY KEY (time, completion_id, attempt)
)
"""
_INDEXES = (
    "CREATE INDEX ledger_by_completion ON ledger_entries (organisation, completion_id, attempt)",
    "CREATE INDEX ledger_by_time ON ledger_entries (organisation, time, completion_id, attempt)",
    """CREATE INDEX ledger_by_idempotency_key ON ledger_entries (organisation, idempotency_key, time, completion_id)
    WHERE idempotency_key IS NOT NULL""",
)

_KEY = "organisation, tier, slot, provider, model, outcome, principal, config, config_version"
# `tier` and the dimensions it leaves out: see persistence/timescale/usage_plan.py. `slot` is where it begins. Cells are
# changed with every commit: the room on their pages keeps that from their index.
_CELLS = f"""
CREATE TABLE usage_cells (
    organisation text COLLATE "C" NOT NULL,
    tier smallint NOT NULL,
    slot timestamptz NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    config text COLLATE "C" NOT NULL,
    config_version bigint NOT NULL,
    {"".join(f"{name} bigint NOT NULL, " for name in NUMBERS)}
    {"".join(f"{name} numeric NOT NULL, " for name in EXACT)}
    PRIMARY KEY ({_KEY})
) WITH (fillfactor = 50)
"""


def _edges() -> str:
    """As persistence/histograms.py has them."""
    edges = [0]
    while edges[-1] < 10**9:
        edges.append(min(10**9, max(edges[-1] + 1, edges[-1] * 219 // 200)))
    return ", ".join(map(str, edges))


# A histogram is a number of which each bin has twelve digits: sums of such numbers are merged histograms.
_LANE = f"""
CREATE FUNCTION usage_lane(duration bigint) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('1e' || 12 * (width_bucket(greatest(duration, 0), '{{{_edges()}}}'::bigint[]) - 1))::numeric
$$
"""


_DIMENSIONS = "e.organisation, e.time, e.provider, e.model, e.outcome, e.principal, e.config, e.config_version"
_SELECTED = ", ".join(f"{FACTS[name]} AS {name}" for name in SUMS)
_VIEW = f"""
CREATE VIEW usage_facts AS SELECT {_DIMENSIONS}, e.end_user, e.labels, {_SELECTED} FROM ledger_entries AS e
"""  # noqa: S608

_NOTHING = "U&'\\E000\\E002'"  # persistence/timescale/texts.py


def _slot(width: str) -> str:
    return f"date_bin('{width}', f.time, timestamptz '1970-01-01 00:00:00Z')"


_WIDE = f"f.principal, coalesce(f.config, {_NOTHING}), coalesce(f.config_version, -1)"
_NARROW = f"{_NOTHING}, {_NOTHING}, -1"

# A statement that adds entries adds them to their cells, in its own transaction; and where an attempt was its
# completion's last so far, and no longer is, takes that one off. Ordered, so that two such statements wait for one
# another and never both.
_COUNT = f"""
CREATE FUNCTION usage_count() RETURNS trigger LANGUAGE plpgsql AS $count$
BEGIN
    INSERT INTO usage_cells AS cell ({_KEY}, {", ".join(SUMS)})
    WITH facts AS MATERIALIZED (
        SELECT {_DIMENSIONS}, {_SELECTED} FROM added AS e
        UNION ALL
        SELECT {_DIMENSIONS}, 0, -1{", 0" * (len(SUMS) - 2)}
        FROM (
            SELECT time, completion_id, organisation, array_agg(attempt) AS attempts, max(attempt) AS newest
            FROM added WHERE attempt >= 0 GROUP BY 1, 2, 3
        ) AS a CROSS JOIN LATERAL (
            SELECT * FROM ledger_entries AS o
            WHERE o.time = a.time AND o.completion_id = a.completion_id AND o.organisation = a.organisation
                AND o.attempt >= 0 AND o.attempt <> ALL (a.attempts)
            ORDER BY o.attempt DESC LIMIT 1
        ) AS e WHERE e.attempt < a.newest
    )
    SELECT f.organisation, place.*, {", ".join(f"sum(f.{name})" for name in SUMS)}
    FROM facts AS f CROSS JOIN LATERAL (VALUES
        (0, {_slot("15 minutes")}, f.provider, f.model, f.outcome, {_WIDE}),
        (1, {_slot("1 hour")}, f.provider, f.model, f.outcome, {_NARROW}),
        (2, {_slot("1 day")}, f.provider, f.model, f.outcome, {_NARROW})
    ) AS place
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
    ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9
    ON CONFLICT ({_KEY}) DO UPDATE SET {", ".join(f"{name} = cell.{name} + excluded.{name}" for name in SUMS)};
    RETURN NULL;
END
$count$
"""  # noqa: S608
_TRIGGER = """
CREATE TRIGGER usage_counted AFTER INSERT ON ledger_entries
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION usage_count()
"""


def upgrade() -> None:
    for statement in (_TABLE, *_INDEXES, _CELLS, _LANE, _VIEW, _COUNT, _TRIGGER):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in (
        "DROP VIEW usage_facts",
        "DROP TABLE ledger_entries, usage_cells",
        "DROP FUNCTION usage_count(), usage_lane(bigint)",
    ):
        op.get_bind().exec_driver_sql(statement)
