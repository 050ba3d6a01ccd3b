"""Values of labels, of which there are a bounded number: callers choose names, and each value is a time series."""

from __future__ import annotations

from collections.abc import Iterable

from providers.prices import listed_models

OTHER = "other"
MAX_LISTED = 400
MAX_UNLISTED = 100
MAX_NAMES = 100
MAX_LENGTH = 100
"""Of a value, in characters; longer ones are `other`."""


class FirstSeen:
    """The first so many; all others are `other`."""

    def __init__(self, most: int, known: Iterable[str] = ()) -> None:
        self._names = set(known)
        self._most = len(self._names) + most

    def __getitem__(self, name: str) -> str:
        return name if name in self._names else OTHER

    def learn(self, name: str) -> None:
        if len(self._names) < self._most and len(name) <= MAX_LENGTH:
            self._names.add(name)


class ModelLabels:
    """Which models have a label of their own: those that the price table lists, and the first MAX_UNLISTED of others
    that a vendor has answered for. What a vendor has never answered for may be made up."""

    def __init__(self) -> None:
        self._listed: set[tuple[str, str]] = set()
        self._answered: set[tuple[str, str]] = set()
        self._names: dict[str, frozenset[str]] = {}

    def of(self, provider: str, model: str) -> str:
        pair = provider, model
        if pair in self._listed or pair in self._answered:
            return model
        if len(self._listed) < MAX_LISTED and model in self._listed_by(provider):
            self._listed.add(pair)
            return model
        return OTHER

    def answered(self, provider: str, model: str) -> None:
        """The vendor knows it."""
        if len(self._answered) < MAX_UNLISTED and len(model) <= MAX_LENGTH and self.of(provider, model) == OTHER:
            self._answered.add((provider, model))

    def _listed_by(self, provider: str) -> frozenset[str]:
        if provider not in self._names:
            self._names[provider] = frozenset(listed.name for listed in listed_models(provider))
        return self._names[provider]
