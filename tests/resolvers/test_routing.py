"""Where a completion goes next: retries, fallbacks, circuits. No I/O and no waiting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from providers.errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnsupportedFeatureError,
)
from providers.types import Credentials
from resolvers import routing
from resolvers.errors import BadUserInputError
from resolvers.key_pool import KeyPool
from resolvers.routing import (
    BACKOFF_BASE_S,
    BACKOFF_CAP_S,
    CIRCUIT_FAILURES,
    CIRCUIT_OPEN_S,
    MAX_CIRCUITS,
    PROBE_LEASE_S,
    TRIES_PER_TARGET,
    Circuits,
    CircuitState,
    Route,
    Vendor,
    parse_target,
    tells_of_illness,
)
from resolvers.types import Target

from .scene import ALPHA, BETA, FakeProvider, unavailable

VENDORS = {name: Vendor(FakeProvider(name), KeyPool.of(Credentials("secret"))) for name in ("alpha", "beta")}
KEY = ("alpha", "a-1", "1")
CALLER = object()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def route(*targets: Target, circuits: Circuits | None = None, jitter: float = 0.0) -> Route:
    return Route(targets or (ALPHA,), VENDORS, circuits or Circuits(Clock()), lambda: jitter)


def opened(clock: Clock, key: tuple[str, str, str] = KEY) -> Circuits:
    circuits = Circuits(clock)
    for _ in range(CIRCUIT_FAILURES):
        circuits.failed(key, CALLER)
    return circuits


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("openai/gpt-4.1", Target("openai", "gpt-4.1")),
        ("openrouter/openai/gpt-4.1", Target("openrouter", "openai/gpt-4.1")),
        ("alpha//", Target("alpha", "/")),
    ],
)
def test_a_target_is_split_at_the_first_slash_only(text: str, target: Target) -> None:
    assert parse_target(text, path=()) == target
    assert str(target) == text


@pytest.mark.parametrize("text", ["", "/", "gpt-4.1", "/gpt-4.1", "openai/"])
def test_a_target_without_both_halves_is_refused_where_it_stands(text: str) -> None:
    with pytest.raises(BadUserInputError) as caught:
        parse_target(text, path=("input", "model"))
    assert caught.value.path == ("input", "model")


def test_a_retryable_failure_has_three_tries_and_then_the_next_target_has_its_own() -> None:
    way = route(ALPHA, BETA)
    steps = [way.first()]
    while steps[-1] is not None:
        steps.append(way.after(unavailable(), time_left_s=60))
    assert [step.target for step in steps if step] == [ALPHA] * TRIES_PER_TARGET + [BETA] * TRIES_PER_TARGET


@pytest.mark.parametrize("kind", [ProviderAuthError, ProviderInvalidRequestError])
def test_what_is_not_retryable_goes_to_the_next_target_at_once(kind: type[ProviderError]) -> None:
    way = route(ALPHA, BETA)
    way.first()
    step = way.after(kind("no", provider="alpha"), time_left_s=60)
    assert step is not None
    assert (step.target, step.delay_s) == (BETA, 0.0)
    assert way.after(kind("no", provider="beta"), time_left_s=60) is None


def test_an_unsupported_feature_ends_the_route_whatever_the_fallbacks() -> None:
    way = route(ALPHA, BETA)
    way.first()
    assert way.after(UnsupportedFeatureError("seed", provider="alpha", model="a-1"), time_left_s=60) is None


@given(st.floats(0, 1, exclude_max=True))
def test_backoff_has_full_jitter_and_doubles(jitter: float) -> None:
    way = route(jitter=jitter)
    way.first()
    for retry in range(TRIES_PER_TARGET - 1):
        step = way.after(unavailable(), time_left_s=60)
        assert step is not None
        assert step.delay_s == jitter * min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**retry)


def test_backoff_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "TRIES_PER_TARGET", 30)
    way = route(jitter=0.999, circuits=Circuits(Clock()))
    way.first()
    delays = [step.delay_s for _ in range(20) if (step := way.after(unavailable(), time_left_s=1e6)) is not None]
    assert max(delays) == 0.999 * BACKOFF_CAP_S


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(0, 1, exclude_max=True))
def test_retry_after_is_honoured_where_there_is_time_for_it(asked: float, left: float, jitter: float) -> None:
    way = route(ALPHA, BETA, jitter=jitter)
    way.first()
    step = way.after(ProviderRateLimitedError("slow down", provider="alpha", retry_after=asked), time_left_s=left)
    assert step is not None
    if step.target == ALPHA:
        assert asked <= step.delay_s < left
    else:
        assert max(asked, jitter * BACKOFF_BASE_S) >= left
        assert step.delay_s == 0


def test_the_last_target_is_given_up_when_its_wait_is_longer_than_the_time_left() -> None:
    way = route()
    way.first()
    assert way.after(unavailable(retry_after=30.0), time_left_s=29) is None


def test_a_target_with_an_open_circuit_is_passed_over() -> None:
    way = route(ALPHA, BETA, circuits=opened(Clock()))
    step = way.first()
    assert step is not None
    assert step.target == BETA
    assert way.blocked == (ALPHA, CIRCUIT_OPEN_S)


def test_a_route_with_every_circuit_open_has_no_first_step() -> None:
    way = route(circuits=opened(Clock()))
    assert way.first() is None
    assert way.blocked == (ALPHA, CIRCUIT_OPEN_S)


def test_a_circuit_that_opens_between_two_tries_ends_them() -> None:
    circuits = Circuits(Clock())
    way = route(ALPHA, BETA, circuits=circuits)
    way.first()
    for _ in range(CIRCUIT_FAILURES):
        circuits.failed(KEY, CALLER)
    step = way.after(unavailable(), time_left_s=60)
    assert step is not None
    assert step.target == BETA


def test_circuits_of_other_models_and_keys_stay_closed() -> None:
    circuits = opened(Clock())
    assert circuits.blocked_for(KEY, CALLER) == CIRCUIT_OPEN_S
    assert circuits.blocked_for(("alpha", "a-2", "1"), CALLER) == 0
    assert circuits.blocked_for(("alpha", "a-1", "tenant"), CALLER) == 0


def test_a_success_between_failures_starts_the_count_anew() -> None:
    circuits = Circuits(Clock())
    for _ in range(CIRCUIT_FAILURES - 1):
        circuits.failed(KEY, CALLER)
    circuits.succeeded(KEY)
    for _ in range(CIRCUIT_FAILURES - 1):
        circuits.failed(KEY, CALLER)
    assert circuits.blocked_for(KEY, CALLER) == 0


def test_a_probe_that_fails_opens_the_circuit_for_another_ten_seconds() -> None:
    clock = Clock()
    circuits = opened(clock)
    for _ in range(3):
        clock.now += CIRCUIT_OPEN_S
        assert circuits.blocked_for(KEY, CALLER) == 0
        circuits.failed(KEY, CALLER)
        assert circuits.blocked_for(KEY, CALLER) == CIRCUIT_OPEN_S


@pytest.mark.parametrize("ends", [Circuits.failed, Circuits.undecided])
def test_a_call_from_before_the_circuit_opened_is_not_taken_for_the_probe(
    ends: Callable[[Circuits, tuple[str, str, str], object], None],
) -> None:
    clock, probe, earlier = Clock(), object(), object()
    circuits = opened(clock)
    clock.now += CIRCUIT_OPEN_S
    assert circuits.blocked_for(KEY, probe) == 0
    ends(circuits, KEY, earlier)
    clock.now += CIRCUIT_OPEN_S
    assert circuits.blocked_for(KEY, CALLER) == CIRCUIT_OPEN_S, "the probe is still out"
    circuits.undecided(KEY, probe)
    assert circuits.blocked_for(KEY, CALLER) == 0


def test_a_probe_that_is_never_heard_of_again_does_not_block_for_ever() -> None:
    clock = Clock()
    circuits = opened(clock)
    clock.now += CIRCUIT_OPEN_S
    assert circuits.blocked_for(KEY, object()) == 0
    clock.now += PROBE_LEASE_S
    assert circuits.blocked_for(KEY, CALLER) == 0


@pytest.mark.parametrize(
    ("error", "ill"),
    [
        (ProviderUnavailableError("down", provider="alpha", status=503), True),
        (ProviderUnavailableError("broke", provider="alpha"), True),
        (ProviderRateLimitedError("wait", provider="alpha", status=429), True),
        (ProviderTimeoutError("slow", provider="alpha", status=408), True),
        (ProviderBadResponseError("not JSON", provider="alpha", status=200), True),
        (ProviderBadResponseError("a tool call of nonsense", provider="alpha", status=400), False),
        (ProviderAuthError("bad key", provider="alpha", status=401), False),
    ],
)
def test_only_a_vendors_own_trouble_tells_of_illness(error: ProviderError, ill: bool) -> None:
    assert tells_of_illness(error) is ill


def test_a_circuit_that_a_limit_has_opened_is_shown_as_open_and_told_to_nobody() -> None:
    clock, told = Clock(), list[object]()
    circuits = Circuits(clock)
    circuits.tell = lambda *news: told.append(news)
    for _ in range(CIRCUIT_FAILURES):
        assert circuits.worst() == {}
        circuits.failed(KEY, CALLER, 2.0)
    assert (circuits.worst(), circuits.open()) == ({"alpha": CircuitState.OPEN}, [])
    clock.now += 2.0
    assert circuits.worst() == {}
    circuits.succeeded(KEY)
    assert told == []


def test_circuits_are_bounded_and_the_oldest_failure_goes_first() -> None:
    first, second = ("alpha", "first", "k"), ("alpha", "second", "k")
    circuits = opened(Clock(), first)
    for _ in range(CIRCUIT_FAILURES):
        circuits.failed(second, CALLER)
    circuits.failed(first, CALLER)
    for number in range(MAX_CIRCUITS - 1):
        circuits.failed(("alpha", f"m{number}", "k"), CALLER)
    assert len(circuits._circuits) == MAX_CIRCUITS
    assert circuits.blocked_for(first, CALLER) > 0
    assert circuits.blocked_for(second, CALLER) == 0


class CircuitMachine(RuleBasedStateMachine):
    """Calls begin and end in any order while time passes. The model knows five things: the calls under way, the counts
    of failures and of refusals in a row, until when the circuit is open, and which call is the probe."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.circuits = Circuits(self.clock)
        self.calls: list[object] = []
        self.failures = self.refusals = 0
        self.open_until = 0.0
        self.probe: object | None = None

    @initialize(calls=st.integers(0, 8), failures=st.integers(0, CIRCUIT_FAILURES))
    def already_under_way(self, calls: int, failures: int) -> None:
        for _ in range(calls + failures):
            self.begins()
        for _ in range(failures):
            self.fails(0)

    @rule()
    def begins(self) -> None:
        """A call, where the circuit does not hold it back."""
        caller = object()
        wait = self.circuits.blocked_for(KEY, caller)
        if self.clock.now < self.open_until:
            assert wait == self.open_until - self.clock.now
        elif self.failures < CIRCUIT_FAILURES:
            assert wait == 0
        elif self.probe is not None:
            assert wait == CIRCUIT_OPEN_S
        else:
            assert wait == 0
            self.probe = caller
        if not wait:
            self.calls.append(caller)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 7))
    def fails(self, which: int) -> None:
        self.circuits.failed(KEY, self._ended(which))
        self.failures += 1
        if self.failures >= CIRCUIT_FAILURES:
            self.open_until = self.clock.now + CIRCUIT_OPEN_S

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 7), asked_s=st.sampled_from([0.0, 0.25, 60.0]))
    def is_refused(self, which: int, asked_s: float) -> None:
        self.circuits.failed(KEY, self._ended(which), asked_s)
        self.refusals += 1
        if self.refusals >= CIRCUIT_FAILURES:
            self.open_until = max(self.open_until, self.clock.now + min(asked_s, CIRCUIT_OPEN_S))

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 7))
    def succeeds(self, which: int) -> None:
        self._ended(which)
        self.circuits.succeeded(KEY)
        self.failures, self.refusals, self.open_until, self.probe = 0, 0, 0.0, None

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 7))
    def tells_nothing(self, which: int) -> None:
        self.circuits.undecided(KEY, self._ended(which))

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0]))
    def passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def holds_no_more_than_it_must(self) -> None:
        assert len(self.circuits._circuits) == bool(self.failures + self.refusals)

    def _ended(self, which: int) -> object:
        call = self.calls.pop(which % len(self.calls))
        if self.probe is call:
            self.probe = None
        return call


TestCircuitMachine = CircuitMachine.TestCase
