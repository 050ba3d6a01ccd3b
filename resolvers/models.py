"""The models of the providers that can be called here, with what the price table and the vendors' pages say of them."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from providers.capabilities import FACTS, ModelCapability, ModelFacts
from providers.prices import ListedModel, ListPrices, list_prices, listed_models

from .errors import BadUserInputError, NotFoundError

MAX_PAGE = 100
ID_PREFIX = "mdl_"


@dataclass(frozen=True, slots=True)
class Model:
    """`facts` are None where no page of the vendor is on record, `prices` where none are published."""

    id: str
    provider: str
    name: str
    context_window: int | None
    prices: ListPrices | None
    facts: ModelFacts | None


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """All that is given must hold. `search` is a part of "provider/model", in any case."""

    provider: str | None = None
    search: str | None = None
    capability: ModelCapability | None = None


@dataclass(frozen=True, slots=True)
class ModelPage:
    """By provider and name, each with its cursor; `more`: there are others behind."""

    models: tuple[tuple[str, Model], ...]
    more: bool


def models(configured: Collection[str], *, first: int, after: str | None, where: ModelFilter) -> ModelPage:
    """Raises BadUserInputError for a page size beyond 1 to 100 or a cursor that this API did not make."""
    if not 1 <= first <= MAX_PAGE:
        raise BadUserInputError(f"first is between 1 and {MAX_PAGE}, not {first}", path=("first",))
    found = [
        (provider, listed.name, listed)
        for provider in sorted(configured)
        for listed in listed_models(provider)
        if _matches(provider, listed, where)
    ]
    start = 0 if after is None else bisect_right(found, _read_cursor(after), key=lambda each: each[:2])
    now = datetime.now(UTC)
    page = [_model(provider, listed, now) for provider, _, listed in found[start : start + first]]
    return ModelPage(
        tuple((_encoded(model.provider, model.name), model) for model in page), more=len(found) > start + first
    )


def model(configured: Collection[str], model_id: str) -> Model:
    """Raises NotFoundError for what is no model's id, and for a model that can't be called here."""
    try:
        provider, name = _decoded(model_id.removeprefix(ID_PREFIX))
    except ValueError:
        raise NotFoundError("no such model") from None
    if provider in configured and model_id.startswith(ID_PREFIX):
        for listed in listed_models(provider):
            if listed.name == name:
                return _model(provider, listed, datetime.now(UTC))
    raise NotFoundError("no such model")


def _matches(provider: str, listed: ListedModel, where: ModelFilter) -> bool:
    if where.provider is not None and provider != where.provider:
        return False
    if where.search is not None and where.search.lower() not in f"{provider}/{listed.name}".lower():
        return False
    facts = FACTS.get((provider, listed.name))
    return where.capability is None or (facts is not None and where.capability in facts.capabilities)


def _model(provider: str, listed: ListedModel, at: datetime) -> Model:
    return Model(
        id=ID_PREFIX + _encoded(provider, listed.name),
        provider=provider,
        name=listed.name,
        context_window=listed.context_window,
        prices=list_prices(provider, listed.name, at),
        facts=FACTS.get((provider, listed.name)),
    )


def _encoded(provider: str, name: str) -> str:
    return base64.urlsafe_b64encode(f"{provider}/{name}".encode()).decode().rstrip("=")


def _decoded(text: str) -> tuple[str, str]:
    """Raises ValueError."""
    try:
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except binascii.Error as error:
        raise ValueError(text) from error
    provider, slash, name = whole.partition("/")
    if not slash or _encoded(provider, name) != text:
        raise ValueError(text)
    return provider, name


def _read_cursor(text: str) -> tuple[str, str]:
    try:
        return _decoded(text)
    except ValueError:
        raise BadUserInputError("not a cursor of this list", path=("after",)) from None
