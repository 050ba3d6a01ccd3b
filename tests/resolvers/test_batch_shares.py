"""Whose items are queued next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from persistence.batch_records import Batch, Counts
from resolvers.batches.shares import name, shares
from tests.persistence.batches import batch

counts = st.builds(Counts, *[st.integers(0, 50)] * 3)
batches = st.lists(
    st.builds(
        lambda organisation, counts, priority, concurrency: batch(
            organisation=organisation, counts=counts, priority=priority, concurrency=concurrency
        ),
        st.sampled_from("abc"),
        counts,
        st.integers(0, 9),
        st.none() | st.integers(1, 60),
    ),
    max_size=8,
)


def under_way(organisation: str, among: list[Batch], found: dict[tuple[str, str], int]) -> int:
    mine = [each for each in among if each.organisation == organisation]
    return sum(each.counts.queued + each.counts.running + found.get(name(each), 0) for each in mine)


def wants(each: Batch, found: dict[tuple[str, str], int]) -> int:
    left = each.counts.waiting - found.get(name(each), 0)
    if each.concurrency is None:
        return left
    taken = each.counts.queued + each.counts.running + found.get(name(each), 0)
    return min(left, each.concurrency - taken)


@given(batches, st.integers(0, 100))
def test_who_has_the_least_under_way_comes_next(among: list[Batch], room: int) -> None:
    found = dict(shares(among, {}, room, ()))
    assert sum(found.values()) <= room
    for each in among:
        assert found.get(name(each), 0) >= 0
        assert wants(each, found) >= 0 or not found.get(name(each)), "no more than may run at once"
    hungry = [each for each in among if wants(each, found) > 0]
    assert not hungry or sum(found.values()) == room, "room is left only where nobody wants it"
    for each in hungry:
        mine = under_way(each.organisation, among, found)
        for other in {name(one)[0] for one in among if found.get(name(one))} - {each.organisation}:
            assert mine >= under_way(other, among, found) - 1, "nobody who has more was served before"
        for lower in among:
            if lower.organisation == each.organisation and lower.priority < each.priority:
                assert not found.get(name(lower)), "the higher priority first"


def test_one_that_has_no_more_leaves_its_share_to_others() -> None:
    first, second = batch(counts=Counts(waiting=9), priority=9), batch(counts=Counts(waiting=9), priority=1)
    assert shares([first, second], {name(first): 2}, 5, {name(first)}) == {name(second): 5}
