"""What a refusal says of when to ask again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from persistence.memory_reservations import MemoryReservations
from persistence.reservation_records import Refused
from resolvers.allowances import Most, needs, refusal
from tests.persistence.limits import limit_rule

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@given(st.floats(0, 1e6), st.lists(st.tuples(st.floats(0, 20), st.integers(1, 10)), min_size=1, max_size=60))
async def test_who_waits_for_so_long_finds_room(start: float, calls: list[tuple[float, int]]) -> None:
    now = start
    reservations = MemoryReservations(lambda: now)
    for number, (pause_s, tokens) in enumerate(calls):
        now += pause_s
        [need] = needs([limit_rule(tokens_per_minute=20, usd_per_day=None)], Most(0, tokens, Decimal(0), None), NOON)
        answer = await reservations.reserve("acme", f"{number}", [need.asked], lease_s=60)
        if isinstance(answer, Refused):
            now += (refusal(need, answer, NOON).retry_after_ms or 0) / 1000
            assert await reservations.reserve("acme", f"{number}", [need.asked], lease_s=60) is None


def test_nor_is_a_new_day_told_of_before_it_begins() -> None:
    late = NOON.replace(hour=23, minute=59, second=59) + timedelta(microseconds=999_600)
    [need] = needs([limit_rule(usd_per_day=Decimal(1))], Most(0, 0, Decimal(1), None), late)
    assert refusal(need, Refused(need.asked, 10**9, 10**9), late).retry_after_ms == 1
    assert refusal(need, Refused(need.asked, 10**9, 10**9), late - timedelta(milliseconds=1)).retry_after_ms == 2
