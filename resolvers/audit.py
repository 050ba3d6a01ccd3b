"""The audit log: what is noted of every write, and how an organisation reads its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import orjson

from persistence.audit_records import ID_PREFIX, Action, AuditEvent, AuditFilter
from persistence.ports import Audit, AuditStore, StoreUnavailableError

from .errors import BadUserInputError, ServiceUnavailableError
from .ids import new_id
from .principal import Principal

MAX_PAGE = 100
MAX_CHARACTERS = 1000
"""Of one value, as JSON: what is longer is cut."""

_ID = re.compile(rf"{ID_PREFIX}[0-9a-f]{{32}}")

Fields = Mapping[str, Any]
"""By the names that the API has for them: what of a record may be noted."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """A value of which the log has another form: `of` tells whether it changed, `as_` is what is noted of it."""

    as_: Any
    of: Any


@dataclass(frozen=True, slots=True)
class Subject:
    """What is written."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class EventPage:
    """Newest first; `more`: there are older ones."""

    events: tuple[AuditEvent, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The use cases. Both raise ServiceUnavailableError."""

    store: AuditStore

    async def note(self, event: AuditEvent) -> None:
        """Of what no store writes together with its event."""
        with _told():
            await self.store.append(event)

    async def page(self, principal: Principal, *, first: int, after: str | None, where: AuditFilter) -> EventPage:
        """Within the principal's organisation. Raises BadUserInputError for a page size beyond 1 to 100, a cursor that
        this list did not make, or an action that there is none of."""
        if not 1 <= first <= MAX_PAGE:
            raise BadUserInputError(f"first is between 1 and {MAX_PAGE}, not {first}", path=("first",))
        if after is not None and _ID.fullmatch(after) is None:
            raise BadUserInputError("not a cursor of this list", path=("after",))
        if where.action is not None and where.action not in [action.value for action in Action]:
            raise BadUserInputError(f"{where.action[:60]!r} is none of {', '.join(Action)}", path=("filter", "action"))
        with _told():
            found = await self.store.page(principal.organisation, where=where, limit=first + 1, before=after)
        return EventPage(tuple(found[:first]), more=len(found) > first)


def event(
    principal: Principal, action: Action, subject: Subject, *, before: Fields | None, after: Fields | None
) -> AuditEvent:
    """`before` and `after`: all that may be noted; the event has what of it changed."""
    event_id, at = new_id(ID_PREFIX)
    changed = [
        name
        for name in {**(before or {}), **(after or {})}
        if before is None or after is None or before.get(name) != after.get(name)
    ]
    return AuditEvent(
        id=event_id,
        organisation=principal.organisation,
        at=at,
        actor=principal.subject,
        key_id=principal.key_id,
        address=principal.origin.address,
        request_id=principal.origin.request_id,
        action=action.value,
        subject_kind=subject.kind,
        subject_id=subject.id,
        before=_noted(before, changed),
        after=_noted(after, changed),
    )


def audited(principal: Principal, action: Action, subject: Subject, fields: Callable[[T], Fields]) -> Audit[T]:
    """For a store. `fields` lists what of a record may be noted."""

    def audit(before: T | None, after: T | None) -> AuditEvent:
        return event(
            principal,
            action,
            subject,
            before=None if before is None else fields(before),
            after=None if after is None else fields(after),
        )

    return audit


def _noted(fields: Fields | None, changed: list[str]) -> Fields | None:
    return None if fields is None else {name: _plain(fields[name]) for name in changed if name in fields}


def _plain(value: Any) -> Any:
    """As JSON has it, at most about MAX_CHARACTERS long."""
    if isinstance(value, Shown):
        return _plain(value.as_)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _cut(value.encode(errors="replace").decode())  # JSON's escapes can write half a character
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _cut(format(value, "f"))
    text = orjson.dumps(value, default=_object).decode()
    return orjson.loads(text) if len(text) <= MAX_CHARACTERS else _cut(text)


def _object(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}… ({len(text)} characters)"


@contextmanager
def _told() -> Iterator[None]:
    """The store's errors as the caller's."""
    try:
        yield
    except StoreUnavailableError as error:
        raise ServiceUnavailableError("the audit log can't be reached at the moment") from error
