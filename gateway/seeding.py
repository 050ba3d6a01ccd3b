"""Made-up usage that looks like a company's: a few models, configs and callers, busy days, retries and failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate, islice
from math import pi, sin
from random import Random
from typing import Any

from persistence.ports import LedgerStore
from persistence.records import CostSource, LedgerEntry, Outcome
from providers.prices import cost_of
from providers.types import Usage
from resolvers.ids import COMPLETION_PREFIX

from .keys import DEVELOPER

BATCH = 2_000  # of a transaction
SMALL_BATCH = 200  # a server that runs beside this waits for no more

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class _Model:
    """`first_token_ms` and `token_ms` are what is usual; `output` tokens too."""

    provider: str
    name: str
    first_token_ms: float
    token_ms: float
    output: float


_MODELS = (
    _Model("openai", "gpt-4.1", 550, 12, 260),
    _Model("openai", "gpt-4.1-mini", 400, 8, 180),
    _Model("openai", "gpt-4o-mini", 380, 9, 150),
    _Model("anthropic", "claude-sonnet-4-5", 900, 15, 420),
    _Model("anthropic", "claude-haiku-4-5", 500, 7, 240),
    _Model("google", "gemini-2.5-flash", 350, 5, 300),
    _Model("groq", "llama-3.3-70b-versatile", 150, 4, 220),
    _Model("compatible", "in-house-7b", 90, 20, 200),  # without a known price
)
_FALLBACK = _MODELS[1]


@dataclass(frozen=True, slots=True)
class _Use:
    """One thing that a caller does, again and again."""

    principal: str
    model: _Model
    config: str | None
    team: str
    weight: int


_USES = (
    _Use(DEVELOPER, _MODELS[2], None, "platform", 2),
    _Use(DEVELOPER, _MODELS[7], None, "platform", 1),
    _Use("key_web", _MODELS[0], "support-chat", "support", 14),
    _Use("key_web", _MODELS[1], "page-summary", "growth", 9),
    _Use("key_mobile", _MODELS[0], "support-chat", "support", 10),
    _Use("key_mobile", _MODELS[5], "voice-notes", "mobile", 6),
    _Use("key_back_office", _MODELS[3], "contract-review", "legal", 4),
    _Use("key_back_office", _MODELS[4], "ticket-triage", "support", 8),
    _Use("key_nightly", _MODELS[6], "catalogue-tags", "data", 12),
    _Use("key_nightly", _MODELS[7], "catalogue-tags", "data", 5),
    _Use("key_search", _MODELS[5], "query-rewrite", "search", 16),
    _Use("key_search", _MODELS[6], None, "search", 6),
    _Use("key_research", _MODELS[3], None, "research", 3),
)
_WEIGHTS = tuple(accumulate(use.weight for use in _USES))
_FEATURES = ("chat", "summary", "search", "import")
_ERRORS = ("PROVIDER_UNAVAILABLE", "PROVIDER_RATE_LIMITED", "PROVIDER_TIMEOUT")
_END_USERS = 5_000
_SPREADS = 4_096
_NOT_BILLED = {"cost": Decimal(0), "cost_source": CostSource.NOT_BILLED}

_Values = dict[str, Any]
"""Fields of an entry."""


def made_up_usage(
    organisation: str, rows: int, *, since: datetime, until: datetime, seed: int
) -> Iterator[LedgerEntry]:
    """`rows` entries by time, from since to before until; the same for the same arguments."""
    dice = _Dice(seed)
    made = 0
    while made < rows:
        [use] = dice.random.choices(_USES, cum_weights=_WEIGHTS)
        time = _moment(since, until, made / rows, dice.random)
        for values in islice(_completion(use, time, dice), rows - made):
            yield LedgerEntry(time=time, organisation=organisation, principal=use.principal, **values)
            made += 1


async def book(store: LedgerStore, entries: Iterator[LedgerEntry], *, alone: bool = False) -> AsyncIterator[int]:
    """Appends them, batch by batch; yields how many there are so far. Unless it is alone, half
    of the time is a server's that may run beside this."""
    size = BATCH if alone else SMALL_BATCH
    booked = 0
    batch = list(islice(entries, size))
    while batch:
        more = asyncio.to_thread(lambda: list(islice(entries, size)))  # made while the store writes those before
        booked += len(batch)
        began = time.monotonic()
        _, batch = await asyncio.gather(store.append(batch), more)
        if not alone:
            await asyncio.sleep(time.monotonic() - began)
        yield booked


class _Dice:
    """Chance, from a number. `spread`: factors around 1, as durations and lengths have; drawn once, as each is dear."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311  # no secret
        self._spread = [self.random.lognormvariate(0, 0.5) for _ in range(_SPREADS)]

    def spread(self) -> float:
        return self._spread[int(self.random.random() * _SPREADS)]


def _moment(since: datetime, until: datetime, share: float, random: Random) -> datetime:
    """A millisecond about that far into the range; more of them fall into the middle of each day."""
    whole = (until - since).total_seconds()
    days, second = divmod(share * whole, _DAY_S)
    part = second / _DAY_S
    busy = part + 0.7 * sin(2 * pi * part) / (2 * pi)
    seconds = min(max(days * _DAY_S + busy * _DAY_S + random.random(), 0.0), whole - 0.001)
    return since + timedelta(milliseconds=int(seconds * 1000))


def _completion(use: _Use, time: datetime, dice: _Dice) -> Iterator[_Values]:
    """Its attempts: most have one, which succeeds."""
    random = dice.random
    first: _Values = {
        "completion_id": _id(time, random),
        "end_user": f"user_{min(int(random.paretovariate(0.6)), _END_USERS)}",
        "config": use.config,
        "config_version": None if use.config is None else 1 + time.day // 7,
        "streamed": random.random() < 0.6,
        "labels": {"team": use.team, "feature": random.choice(_FEATURES)},
    }
    luck = random.random()
    if luck < 0.03:
        model = {"provider": use.model.provider, "model": use.model.name}
        yield first | model | _NOT_BILLED | {"attempt": 0, "outcome": Outcome.SUCCEEDED, "cached": True}
    elif luck < 0.07:
        yield _failed(first, 1, use.model, dice)
        if luck < 0.065:
            yield _written(first, 2, _FALLBACK if luck < 0.05 else use.model, time, dice)
        else:
            yield _failed(first, 2, use.model, dice)
    elif luck < 0.085:
        yield _written(first, 1, use.model, time, dice, outcome=Outcome.CANCELLED, estimated=True)
    elif luck < 0.087:
        yield _written(first, 1, use.model, time, dice, outcome=Outcome.ABANDONED, estimated=True)
    else:
        yield _written(first, 1, use.model, time, dice, finish_reason="stop")


def _failed(first: _Values, attempt: int, model: _Model, dice: _Dice) -> _Values:
    return (
        first
        | _NOT_BILLED
        | {
            "attempt": attempt,
            "provider": model.provider,
            "model": model.name,
            "outcome": Outcome.FAILED,
            "error_code": dice.random.choice(_ERRORS),
            "latency_ms": int(400 * dice.spread() * dice.spread()),
        }
    )


def _written(first: _Values, attempt: int, model: _Model, time: datetime, dice: _Dice, **more: Any) -> _Values:
    read, wrote = int(900 * dice.spread() * dice.spread()), 1 + int(model.output * dice.spread())
    cached = read // 2 if dice.random.random() < 0.3 else 0
    first_token_ms = int(model.first_token_ms * dice.spread())
    priced = cost_of(model.provider, model.name, Usage(read, wrote, cached), time)
    return {
        **first,
        "attempt": attempt,
        "provider": model.provider,
        "model": model.name,
        "outcome": Outcome.SUCCEEDED,
        "input_tokens": read,
        "output_tokens": wrote,
        "cached_input_tokens": cached,
        "cost": priced.cost,
        "cost_source": CostSource(priced.source),
        "price_version": priced.price_version,
        "latency_ms": first_token_ms + int(wrote * model.token_ms),
        "time_to_first_token_ms": first_token_ms if first["streamed"] else None,
        **more,
    }


def _id(time: datetime, random: Random) -> str:
    """As `resolvers.ids` makes them, of another moment than now."""
    milliseconds = (time - _EPOCH) // timedelta(milliseconds=1)
    bits = milliseconds << 80 | 7 << 76 | random.getrandbits(12) << 64 | 2 << 62 | random.getrandbits(62)
    return f"{COMPLETION_PREFIX}{bits:032x}"
