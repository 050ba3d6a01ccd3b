"""Usage summed up as it is booked, and corrections."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_QUARTER_MS = 900_000
_PERIOD_MS = 14_400_000
_MOST = 10**12  # that an entry adds of tokens, or of milliseconds
_FULL = 256  # entries; a cell is rewritten with each of them, so it stays small

_KEY = "organisation, tier, slot, provider, model, outcome, principal, config, config_version, part"
_NUMBERS = (
    "entries",
    "completions",
    "attempts",
    "failed_attempts",
    "cost",
    "unpriced",
    "estimated",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "written_tokens",
    "writing_ms",
)
_TEXTS = ("other_costs", "latency_marks", "first_token_marks")

# `tier` 0: quarter hours, kept by the triggers below. The others are folded of it: see persistence/sqlite/rollup.py.
# `slot`: milliseconds since 1970, UTC. A dimension without a value, or that the tier leaves out, is an empty blob.
# `cost` in 10^-12 USD; `other_costs` are those that don't fit. Marks: one for each duration, see usage_bins.
_CELLS = f"""
CREATE TABLE usage_cells (
    organisation TEXT NOT NULL,
    tier INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    principal ANY NOT NULL,
    config ANY NOT NULL,
    config_version ANY NOT NULL,
    part INTEGER NOT NULL,
    {"".join(f"{name} INTEGER NOT NULL DEFAULT 0, " for name in _NUMBERS)}
    {"".join(f"{name} TEXT NOT NULL DEFAULT '', " for name in (*_TEXTS, "latency", "time_to_first_token"))}
    PRIMARY KEY ({_KEY})
) STRICT, WITHOUT ROWID
"""
# Periods of four hours whose quarter hours have changed since they were folded.
_OPEN = """
CREATE TABLE usage_open (
    organisation TEXT NOT NULL,
    period INTEGER NOT NULL,
    PRIMARY KEY (organisation, period)
) STRICT, WITHOUT ROWID
"""
_BINS = "CREATE TABLE usage_bins (edge INTEGER PRIMARY KEY, mark TEXT NOT NULL) STRICT"


def _floor(time: str, width: int) -> str:
    return f"{time} - (({time} % {width}) + {width}) % {width}"  # `%` has the sign of the time


def _is_last(entry: str) -> str:
    return f"""NOT EXISTS (
        SELECT 1 FROM ledger_entries AS later
        WHERE later.completion_id = {entry}.completion_id AND later.attempt > {entry}.attempt
            AND later.time = {entry}.time AND later.organisation = {entry}.organisation
    )"""  # noqa: S608


def _mark(entry: str, column: str) -> str:
    found = f"(SELECT mark FROM usage_bins WHERE edge <= {entry}.{column} ORDER BY edge DESC LIMIT 1)"  # noqa: S608
    return f"CASE WHEN {entry}.attempt > 0 AND {entry}.{column} IS NOT NULL THEN coalesce({found}, '') ELSE '' END"


def _bounded(figure: str) -> str:
    """A vendor's absurd figure spoils no sum: 64 bits hold nine million of them."""
    return f"max(-{_MOST}, min({_MOST}, {figure}))"


def _facts(entry: str) -> dict[str, str]:
    """What an entry adds to each sum of its cell."""
    cost = f"{entry}.cost"
    point, size = f"instr({cost}, '.')", f"length({cost})"
    fits = f"{point} BETWEEN 2 AND 5 AND {size} - {point} <= 12 AND NOT instr({cost}, 'E')"
    factor = f"CAST('1' || substr('000000000000', {size} - {point} + 1) AS INTEGER)"
    wrote = f"{entry}.attempt > 0 AND {entry}.output_tokens > 0"
    return {
        "entries": "1",
        "completions": f"{entry}.attempt >= 0 AND {_is_last(entry)}",
        "attempts": f"{entry}.attempt > 0",
        "failed_attempts": f"{entry}.attempt > 0 AND {entry}.outcome = 'failed'",
        "cost": f"CASE WHEN {fits} THEN CAST(replace({cost}, '.', '') AS INTEGER) * {factor} ELSE 0 END",
        "unpriced": f"({entry}.attempt >= 0 AND {cost} IS NULL) - {entry}.settles_cost",
        "estimated": f"({entry}.attempt >= 0 AND {entry}.estimated) - {entry}.settles_estimate",
        "input_tokens": _bounded(f"{entry}.input_tokens"),
        "output_tokens": _bounded(f"{entry}.output_tokens"),
        "cached_input_tokens": _bounded(f"{entry}.cached_input_tokens"),
        "cache_write_tokens": _bounded(f"{entry}.cache_write_tokens"),
        "reasoning_tokens": _bounded(f"{entry}.reasoning_tokens"),
        "written_tokens": f"CASE WHEN {wrote} THEN {_bounded(f'{entry}.output_tokens')} ELSE 0 END",
        "writing_ms": f"CASE WHEN {wrote} THEN {_bounded(f'{entry}.latency_ms')} ELSE 0 END",
        "other_costs": f"CASE WHEN {cost} IS NULL OR {cost} = '0' OR {fits} THEN '' ELSE {cost} || ' ' END",
        "latency_marks": _mark(entry, "latency_ms"),
        "first_token_marks": _mark(entry, "time_to_first_token_ms"),
    }


def _cell(entry: str) -> str:
    """The key of an entry's cell."""
    return f"""{entry}.organisation, 0, {_floor(f"{entry}.time", _QUARTER_MS)},
        {entry}.provider, {entry}.model, {entry}.outcome, {entry}.principal,
        coalesce({entry}.config, x''), coalesce({entry}.config_version, x''), 0"""


_VIEW = f"""
CREATE VIEW usage_facts AS SELECT
    e.organisation, e.time, e.provider, e.model, e.outcome, e.principal, e.config, e.config_version, e.end_user,
    e.labels, {", ".join(f"{fact} AS {name}" for name, fact in _facts("e").items())}
FROM ledger_entries AS e
"""  # noqa: S608

_ADDED = ", ".join(
    [f"{name} = {name} + excluded.{name}" for name in _NUMBERS]
    + [f"{name} = {name} || excluded.{name}" for name in _TEXTS]
)
_ADD = f"""
    INSERT INTO usage_cells ({_KEY}, {", ".join(_facts("e"))}) {{source}} ON CONFLICT DO UPDATE SET {_ADDED}
"""


def _cell_and_facts(entry: str) -> str:
    return ", ".join([_cell(entry), *_facts(entry).values()])


_COUNTED = f"""
CREATE TRIGGER usage_counted AFTER INSERT ON ledger_entries BEGIN
    INSERT INTO usage_open VALUES (NEW.organisation, {_floor("NEW.time", _PERIOD_MS)}) ON CONFLICT DO NOTHING;
    {_ADD.format(source=f"VALUES ({_cell_and_facts('NEW')})")};
END
"""  # noqa: S608
_EARLIER = """
    FROM ledger_entries AS earlier
    WHERE earlier.completion_id = NEW.completion_id AND earlier.attempt BETWEEN 0 AND NEW.attempt - 1
        AND earlier.time = NEW.time AND earlier.organisation = NEW.organisation
"""
# The attempt that was its completion's last so far no longer is.
_SUCCEEDED = f"""
CREATE TRIGGER usage_attempt_succeeded AFTER INSERT ON ledger_entries WHEN EXISTS (SELECT 1 {_EARLIER}) BEGIN
    INSERT INTO usage_cells ({_KEY}, completions)
    SELECT {_cell("e")}, -1 FROM ledger_entries AS e
    WHERE e.completion_id = NEW.completion_id AND e.time = NEW.time
        AND e.attempt = (SELECT max(earlier.attempt) {_EARLIER}) AND {_is_last("NEW")}
    ON CONFLICT DO UPDATE SET completions = completions - 1;
END
"""  # noqa: S608
_SAME = " AND ".join(f"{name} = NEW.{name}" for name in _KEY.split(", ")[:-1])
_ROTATED = f"""
CREATE TRIGGER usage_cell_full AFTER UPDATE OF entries ON usage_cells
WHEN NEW.part = 0 AND NEW.tier = 0 AND NEW.entries >= {_FULL} BEGIN
    UPDATE usage_cells SET part = (SELECT 1 + max(part) FROM usage_cells WHERE {_SAME}) WHERE {_SAME} AND part = 0;
END
"""  # noqa: S608


def upgrade() -> None:
    op.execute("ALTER TABLE ledger_entries ADD COLUMN corrects INTEGER")
    op.execute("ALTER TABLE ledger_entries ADD COLUMN settles_cost INTEGER NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE ledger_entries ADD COLUMN settles_estimate INTEGER NOT NULL DEFAULT 0")
    for statement in (_CELLS, _OPEN, _BINS, _VIEW, _ROTATED):
        op.execute(statement)
    op.get_bind().exec_driver_sql("INSERT INTO usage_bins VALUES (?, ?)", _bins())
    op.execute(_ADD.format(source=f"SELECT {_cell_and_facts('e')} FROM ledger_entries AS e WHERE true"))  # noqa: S608
    op.execute(f"""
        INSERT INTO usage_open SELECT DISTINCT organisation, {_floor("slot", _PERIOD_MS)} FROM usage_cells
    """)  # noqa: S608
    op.execute(_COUNTED)
    op.execute(_SUCCEEDED)


def _bins() -> list[tuple[int, str]]:
    """As persistence/histograms.py has them."""
    edges = [0]
    while edges[-1] < 10**9:
        edges.append(min(10**9, max(edges[-1] + 1, edges[-1] * 219 // 200)))
    return [(edge, chr(0x21 + number)) for number, edge in enumerate(edges)]


def downgrade() -> None:
    for trigger in ("usage_counted", "usage_attempt_succeeded"):
        op.execute(f"DROP TRIGGER {trigger}")
    op.execute("DROP VIEW usage_facts")
    for table in ("usage_cells", "usage_open", "usage_bins"):
        op.execute(f"DROP TABLE {table}")
    for column in ("corrects", "settles_cost", "settles_estimate"):
        op.execute(f"ALTER TABLE ledger_entries DROP COLUMN {column}")
