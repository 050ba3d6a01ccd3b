"""How much a process takes on, and that it is given back however things end."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from math import inf

import pytest

from gateway.capacity import BYTES_A_PLACE, Capacity, OverloadedError, SocketQuota
from resolvers.principal import Principal

ANN = Principal("ann", "acme", frozenset(), inf)


def test_one_more_is_refused_until_one_has_ended() -> None:
    capacity = Capacity(2)
    with capacity.operation(ANN):
        with ExitStack() as second:
            second.enter_context(capacity.operation(ANN))
            with pytest.raises(OverloadedError), capacity.operation(ANN):
                pass
            assert (capacity.in_flight, capacity.shed) == (2, 1)
        with capacity.operation(ANN):
            assert capacity.in_flight == 2
    assert capacity.in_flight == 0


def test_what_fails_is_given_back_too() -> None:
    capacity = Capacity(1)
    for _ in range(3):
        with suppress(ZeroDivisionError), capacity.operation(ANN):
            _ = 1 / 0
    assert capacity.in_flight == 0


def test_who_takes_all_that_there_is_does_not_shut_out_others() -> None:
    capacity = Capacity(20)
    bob, carol = (replace(ANN, organisation=each) for each in ("globex", "initech"))
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(capacity.operation(ANN))
        with pytest.raises(OverloadedError), capacity.operation(ANN):
            pass
        for principal in (bob, carol):
            stack.enter_context(capacity.operation(principal))
        for principal in (ANN, bob, carol):
            with pytest.raises(OverloadedError), capacity.operation(principal):
                pass
        assert capacity.in_flight == 22
    assert (capacity.in_flight, capacity._held) == (0, {})


def test_a_large_body_takes_the_places_of_several() -> None:
    capacity = Capacity(20)
    bob = replace(ANN, organisation="globex")
    with capacity.operation(ANN) as ann:
        for size in (1, BYTES_A_PLACE - 1, 2 * BYTES_A_PLACE, 17 * BYTES_A_PLACE, 5 * BYTES_A_PLACE):
            ann.hold(size)
        with capacity.operation(ANN) as second:
            second.hold(BYTES_A_PLACE)
            with pytest.raises(OverloadedError):
                second.hold(2 * BYTES_A_PLACE)
            with pytest.raises(OverloadedError), capacity.operation(ANN):
                pass
            with capacity.operation(bob) as third:
                third.hold(BYTES_A_PLACE)
                with pytest.raises(OverloadedError):
                    third.hold(2 * BYTES_A_PLACE)
                assert capacity.in_flight == 3
        with capacity.operation(ANN) as second:
            second.hold(BYTES_A_PLACE)
    assert (capacity.in_flight, capacity._taken, capacity._held) == (0, 0, {})


def test_where_it_is_alone_any_body_has_room() -> None:
    capacity = Capacity(2)
    with capacity.operation(ANN) as place:
        place.hold(100 * BYTES_A_PLACE)
        with pytest.raises(OverloadedError), capacity.operation(ANN):
            pass
    with capacity.operation(ANN), capacity.operation(ANN) as second, pytest.raises(OverloadedError):
        second.hold(BYTES_A_PLACE)
    assert capacity._held == {}


def test_nobody_has_more_of_it_than_a_share() -> None:
    capacity = Capacity(20)
    bob = replace(ANN, organisation="globex")
    with ExitStack() as stack:
        for _ in range(18):
            stack.enter_context(capacity.operation(ANN))
        for _ in range(2):
            stack.enter_context(capacity.operation(bob))
        with pytest.raises(OverloadedError), capacity.operation(bob):
            pass


def test_each_has_sockets_of_its_own() -> None:
    quota = SocketQuota(1)
    others = [replace(ANN, subject="bob"), replace(ANN, organisation="globex"), replace(ANN, key_id="key")]
    with ExitStack() as stack:
        for each in (ANN, *others):
            stack.enter_context(quota.socket(each))
        for each in (ANN, *others):
            with pytest.raises(OverloadedError), quota.socket(each):
                pass
        assert len(quota) == 4
    assert len(quota) == 0


def test_a_key_and_the_tokens_that_it_minted_are_one() -> None:
    quota = SocketQuota(1)
    with (
        quota.socket(replace(ANN, key_id="key")),
        pytest.raises(OverloadedError),
        quota.socket(replace(ANN, subject="bob", key_id="key")),
    ):
        pass


def test_nothing_is_kept_of_who_has_none() -> None:
    quota = SocketQuota(1)
    for number in range(100):
        with quota.socket(replace(ANN, subject=str(number))):
            pass
    assert not quota._open
