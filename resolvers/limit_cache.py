"""Limits at hand for completions: none of them waits for a read in the usual case."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from persistence.limit_records import Limited, LimitRule
from persistence.ports import LimitStore, StoreUnavailableError
from providers.variants import model_itself

from .cache_counts import CacheCounts

FRESH_S = 5.0  # for so long another process's write may go unseen, where nobody tells of it
TRIAL_INTERVAL_S = 5.0
MAX_ORGANISATIONS = 10_000


class Rules:
    """Those of an organisation, by whose calls they limit: a call finds its own among a thousand at once."""

    __slots__ = ("_by_subject",)

    def __init__(self, rules: Iterable[LimitRule] = ()) -> None:
        self._by_subject = {(rule.limited, rule.name): rule for rule in rules}

    def __iter__(self) -> Iterator[LimitRule]:
        return iter(self._by_subject.values())

    def __len__(self) -> int:
        return len(self._by_subject)

    def applying(self, key_id: str | None, provider: str, model: str) -> Sequence[LimitRule]:
        """To calls by this API key, or none, to this model, under whatever of its names."""
        if not self._by_subject:
            return ()
        subjects = (
            (Limited.ORGANISATION, ""),
            (Limited.API_KEY, key_id),
            *((Limited.MODEL, name) for name in _names(provider, model)),
        )
        return [rule for each in subjects if (rule := self._by_subject.get(each)) is not None]  # type: ignore[arg-type]


NO_RULES = Rules()


def counts_for(rule: LimitRule, provider: str, model: str) -> bool:
    """Whether the rule, if it applies to a call, is of this model's too."""
    return rule.limited is not Limited.MODEL or rule.name in _names(provider, model)


def _names(provider: str, model: str) -> Iterable[str]:
    """Of the rules that are of the model: by its name, by that of the model itself, and by its provider's."""
    return dict.fromkeys(f"{provider}/{each}" for each in (model, model_itself(model), "*"))


@dataclass(frozen=True, slots=True)
class _Known:
    """Monotonic seconds."""

    rules: Rules
    stale_at: float


class LimitCache:
    """`clock` is monotonic, in seconds.

    While the store can't be read, the last that is known holds for as long as that lasts: a limit must not be escaped
    by waiting. An organisation that nothing is known of has none meanwhile: its completions go on.
    """

    def __init__(self, store: LimitStore, clock: Callable[[], float]) -> None:
        self.counts = CacheCounts()
        self._store = store
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._writes = 0

    def at_hand(self, organisation: str) -> Rules | None:
        known = self._known.get(organisation)
        if known is None or self._clock() >= known.stale_at:
            return None
        self.counts.hits += 1
        return known.rules

    def has_none(self, organisation: str) -> bool:
        """It is known that nothing is limited."""
        known = self._known.get(organisation)
        return known is not None and not known.rules and self._clock() < known.stale_at

    async def rules(self, organisation: str) -> Rules:
        """One caller reads; the others have what was known meanwhile."""
        known, now = self._known.get(organisation), self._clock()
        if known is not None:
            if now < known.stale_at:
                return known.rules
            self._keep(organisation, _Known(known.rules, now + TRIAL_INTERVAL_S))
        self.counts.misses += 1
        try:
            return await self._read(organisation)
        except StoreUnavailableError:
            rules = known.rules if known is not None else NO_RULES
            self._keep(organisation, _Known(rules, self._clock() + TRIAL_INTERVAL_S))
            return rules
        except asyncio.CancelledError:
            self.outdate(organisation)  # the next caller reads
            raise

    def outdate(self, organisation: str) -> None:
        """Its rules have been written, by whatever process."""
        self._writes += 1
        if (known := self._known.get(organisation)) is not None:
            self._known[organisation] = _Known(known.rules, self._clock())

    def outdate_all(self) -> None:
        for organisation in list(self._known):
            self.outdate(organisation)
        self._writes += 1

    async def _read(self, organisation: str) -> Rules:
        writes = self._writes
        rules = Rules(await self._store.of(organisation))
        now = self._clock()
        self._keep(organisation, _Known(rules, now + FRESH_S if writes == self._writes else now))
        return rules

    def _keep(self, organisation: str, known: _Known) -> None:
        self._known[organisation] = known
        self._known.move_to_end(organisation)
        if len(self._known) > MAX_ORGANISATIONS:
            self._known.popitem(last=False)
