"""What an entry adds to the sums, as revisions 0001 and 0002 have it. Never changed: a later revision has its own."""

from __future__ import annotations

_MOST = 10**12  # that an entry adds of tokens, or of milliseconds

NUMBERS = (
    "entries",
    "completions",
    "attempts",
    "failed_attempts",
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
EXACT = ("cost", "latency", "time_to_first_token")
SUMS = (*NUMBERS, *EXACT)


def _bounded(figure: str) -> str:
    """A vendor's absurd figure spoils no sum: 64 bits hold nine million of them."""
    return f"greatest(-{_MOST}, least({_MOST}, e.{figure}))"


IS_LAST = """NOT EXISTS (
    SELECT FROM ledger_entries AS later
    WHERE later.time = e.time AND later.completion_id = e.completion_id AND later.attempt > e.attempt
        AND later.organisation = e.organisation
)"""
_WROTE = "e.attempt > 0 AND e.output_tokens > 0"
FACTS = {
    "entries": "1",
    "completions": f"(e.attempt >= 0 AND {IS_LAST})::int",
    "attempts": "(e.attempt > 0)::int",
    "failed_attempts": "(e.attempt > 0 AND e.outcome = 'failed')::int",
    "unpriced": "(e.attempt >= 0 AND e.cost IS NULL)::int - e.settles_cost::int",
    "estimated": "(e.attempt >= 0 AND e.estimated)::int - e.settles_estimate::int",
    "input_tokens": _bounded("input_tokens"),
    "output_tokens": _bounded("output_tokens"),
    "cached_input_tokens": _bounded("cached_input_tokens"),
    "cache_write_tokens": _bounded("cache_write_tokens"),
    "reasoning_tokens": _bounded("reasoning_tokens"),
    "written_tokens": f"CASE WHEN {_WROTE} THEN {_bounded('output_tokens')} ELSE 0 END",
    "writing_ms": f"CASE WHEN {_WROTE} THEN {_bounded('latency_ms')} ELSE 0 END",
    "cost": "coalesce(e.cost, 0)",
    "latency": "CASE WHEN e.attempt > 0 THEN usage_lane(e.latency_ms) ELSE 0 END",
    "time_to_first_token": """CASE WHEN e.attempt > 0 AND e.time_to_first_token_ms IS NOT NULL
        THEN usage_lane(e.time_to_first_token_ms) ELSE 0 END""",
}
"""What an entry adds to each sum of its cells."""
