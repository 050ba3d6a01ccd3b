"""Where a completion goes, and where it goes next. Decides; does no I/O.

Retries live here and nowhere else: only what is retryable, exponential backoff with full jitter, `Retry-After`
honoured; then the next target with its own retries. A circuit per (provider, model, key) keeps calls from a vendor that
is down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from providers.errors import ProviderError, ProviderRateLimitedError, UnsendableRequestError
from providers.ports import ModelProvider

from .errors import BadUserInputError
from .key_pool import KeyPool, ProviderKey
from .types import Target

TRIES_PER_TARGET = 3
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 8.0
CIRCUIT_FAILURES = 5
CIRCUIT_OPEN_S = 10.0
PROBE_LEASE_S = 300.0  # the longest deadline that a completion may have: no probe is out for longer
MAX_CIRCUITS = 4096  # model names come from callers


@dataclass(frozen=True, slots=True)
class Vendor:
    """A provider that this deployment can call, with the keys to call it with."""

    provider: ModelProvider
    keys: KeyPool


def parse_target(text: str, *, path: Sequence[str | int]) -> Target:
    """ "provider/model", split at the first slash only. Raises BadUserInputError."""
    provider, slash, model = text.partition("/")
    if not slash or not provider or not model:
        raise BadUserInputError(f"a model is written 'provider/model', not {text[:100]!r}", path=path)
    return Target(provider, model)


def tells_of_illness(error: ProviderError) -> bool:
    """Whether an error speaks of the vendor's health. A 4xx is this caller's own, even where another try may help; but
    a vendor that asks to wait (429) or timed out (408) is better left alone."""
    blames_the_caller = error.status is not None and 400 <= error.status < 500 and error.status not in (408, 429)
    return error.retryable and not blames_the_caller


def rest_asked(error: ProviderError) -> float | None:
    """For how many seconds a vendor whose limit is met asks to be left alone; None for any other error."""
    return error.retry_after or 0.0 if isinstance(error, ProviderRateLimitedError) else None


CircuitKey = tuple[str, str, str]
"""Provider, model, and the id of the key that it is called with."""


class CircuitState(IntEnum):
    """How a circuit stands; the greater, the worse. Half-open: the next call, or one under way, is the probe."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    refusals: int = 0
    open_until: float = 0.0
    probe: object | None = None
    probe_until: float = 0.0


class Circuits:
    """Consecutive failures open a circuit for ten seconds; then one probe decides. Consecutive refusals, as a vendor's
    limit is met, open it for as long as the vendor asks, without a probe: many may share a key, of whom one has met the
    limit. `clock` is monotonic, in seconds.

    A `caller` is whoever has at most one call under way: calls from before the circuit opened may still end while the
    probe is out, and must not be taken for it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.tell: Callable[[CircuitKey, float], None] | None = None
        """Who wants to know that one has opened here, for how many seconds, or closed: then for 0."""
        self._clock = clock
        self._circuits: OrderedDict[CircuitKey, _Circuit] = OrderedDict()

    def blocked_for(self, key: CircuitKey, caller: object) -> float:
        """Seconds until a call may be tried; 0 lets this one through, as the probe where the circuit was open."""
        circuit = self._circuits.get(key)
        if circuit is None:
            return 0.0
        left = circuit.open_until - self._clock()
        if left > 0:
            return left
        if circuit.failures < CIRCUIT_FAILURES:
            return 0.0
        if circuit.probe is not None and self._clock() < circuit.probe_until:
            return CIRCUIT_OPEN_S
        circuit.probe = caller
        circuit.probe_until = self._clock() + PROBE_LEASE_S
        return 0.0

    def succeeded(self, key: CircuitKey) -> None:
        circuit = self._circuits.pop(key, None)
        if circuit is not None and circuit.failures >= CIRCUIT_FAILURES and self.tell is not None:
            self.tell(key, 0.0)

    def failed(self, key: CircuitKey, caller: object, rest_s: float | None = None) -> None:
        """`rest_s`: as `rest_asked` says. Of refusals other processes are not told: they find out for themselves."""
        circuit = self._circuits.setdefault(key, _Circuit())
        self._circuits.move_to_end(key)
        self.undecided(key, caller)
        if rest_s is not None:
            circuit.refusals += 1
            if circuit.refusals >= CIRCUIT_FAILURES:
                circuit.open_until = max(circuit.open_until, self._clock() + min(rest_s, CIRCUIT_OPEN_S))
        else:
            circuit.failures += 1
            if circuit.failures >= CIRCUIT_FAILURES:
                circuit.open_until = self._clock() + CIRCUIT_OPEN_S
                if self.tell is not None:
                    self.tell(key, CIRCUIT_OPEN_S)
        self._bound()

    def heard(self, key: CircuitKey, open_s: float) -> None:
        """What another process has told of a circuit."""
        if open_s <= 0:
            self._circuits.pop(key, None)
            return
        circuit = self._circuits.setdefault(key, _Circuit())
        self._circuits.move_to_end(key)
        circuit.failures = max(circuit.failures, CIRCUIT_FAILURES)
        circuit.open_until = max(circuit.open_until, self._clock() + open_s)
        self._bound()

    def open(self) -> Sequence[tuple[CircuitKey, float]]:
        """Those that are open as their vendor fails, and for how many seconds more."""
        now = self._clock()
        ill = [(key, each) for key, each in self._circuits.items() if each.failures >= CIRCUIT_FAILURES]
        return [(key, each.open_until - now) for key, each in ill if each.open_until > now]

    def _bound(self) -> None:
        while len(self._circuits) > MAX_CIRCUITS:
            self._circuits.popitem(last=False)

    def worst(self) -> Mapping[str, CircuitState]:
        """By provider, the worst of its circuits. A provider without an entry has none that is not closed."""
        found: dict[str, CircuitState] = {}
        now = self._clock()
        for (provider, _, _), circuit in self._circuits.items():
            if circuit.open_until > now:
                found[provider] = CircuitState.OPEN
            elif circuit.failures >= CIRCUIT_FAILURES:
                found[provider] = max(CircuitState.HALF_OPEN, found.get(provider, CircuitState.CLOSED))
        return found

    def undecided(self, key: CircuitKey, caller: object) -> None:
        """The call ended without telling anything of the vendor's health: a probe's place becomes free again."""
        if (circuit := self._circuits.get(key)) is not None and circuit.probe is caller:
            circuit.probe = None


@dataclass(frozen=True, slots=True)
class Step:
    """The next attempt: wait `delay_s`, then call `vendor` for `target` by `key`."""

    target: Target
    vendor: Vendor
    key: ProviderKey
    delay_s: float = 0.0

    @property
    def circuit(self) -> CircuitKey:
        return (self.target.provider, self.target.model, self.key.id)


class Route:
    """One completion's way through its targets. `blocked` names the target whose open circuit was last in the way."""

    def __init__(
        self,
        targets: Sequence[Target],
        vendors: Mapping[str, Vendor],
        circuits: Circuits,
        random: Callable[[], float],
    ) -> None:
        self._targets = [(target, vendors[target.provider]) for target in targets]
        self._circuits = circuits
        self._random = random
        self._position = 0
        self._tries = 0
        self._spent: set[str] = set()  # of the target's keys: those that are over their limit, or refused
        self._last: Step | None = None
        self.blocked: tuple[Target, float] | None = None

    def first(self) -> Step | None:
        return self._current()

    def after(self, error: ProviderError, *, time_left_s: float) -> Step | None:
        """What follows a failed attempt; None when there is nothing left to try in the time that is left."""
        if isinstance(error, UnsendableRequestError):
            return None
        if (step := self._by_another_key(error)) is not None:
            return step
        if error.retryable and self._tries < TRIES_PER_TARGET:
            delay = self._delay(error)
            if delay < time_left_s and (step := self._step(delay)) is not None:
                return step
        self._next_target()
        return self._current()

    def _next_target(self) -> None:
        self._position += 1
        self._tries = 0
        self._spent.clear()

    def _by_another_key(self, error: ProviderError) -> Step | None:
        """At once, and at no cost of tries, where the key alone was to blame and another is ready."""
        last = self._last
        if last is None or not last.vendor.keys.failed(last.key, error):
            return None
        self._spent.add(last.key.id)
        if not last.vendor.keys.has_ready(self._spent) or (step := self._step(0.0)) is None:
            return None
        self._tries -= 1
        return step

    def _delay(self, error: ProviderError) -> float:
        backoff = self._random() * min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** (self._tries - 1))
        return max(backoff, error.retry_after or 0.0)

    def _current(self) -> Step | None:
        while self._position < len(self._targets):
            if (step := self._step(0.0)) is not None:
                return step
            self._next_target()
        return None

    def _step(self, delay_s: float) -> Step | None:
        """By a key whose circuit lets the call through; one that is spent comes again where there is no other."""
        target, vendor = self._targets[self._position]
        avoided = set(self._spent) if len(self._spent) < len(vendor.keys.keys) else set()
        while (key := vendor.keys.pick(avoided)) is not None:
            step = Step(target, vendor, key, delay_s)
            wait = self._circuits.blocked_for(step.circuit, self)
            if not wait:
                self._tries += 1
                self._last = step
                return step
            self.blocked = (target, wait)
            avoided.add(key.id)
        return None


def check_targets(targets: Sequence[tuple[Target, tuple[str | int, ...]]], vendors: Mapping[str, Vendor]) -> None:
    """Every target's provider must be one that this deployment can call. Raises BadUserInputError."""
    for target, path in targets:
        if target.provider not in vendors:
            ready = ", ".join(sorted(vendors)) or "none"
            raise BadUserInputError(
                f"the provider {target.provider[:100]!r} is unknown or has no key here; ready: {ready}", path=path
            )
