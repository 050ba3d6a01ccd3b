"""What is taken of limits before a call, and what it comes to after it. Amounts are exact up to 2**53."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PARTS = 60
"""Of a WINDOW: what was taken leaves it in so many steps, never too early."""


class Kind(StrEnum):
    """WINDOW: what was taken within the last `seconds`. BUDGET: all that was taken since it was begun. PLACES: what is
    held at the moment."""

    WINDOW = "window"
    BUDGET = "budget"
    PLACES = "places"


@dataclass(frozen=True, slots=True)
class Allowance:
    """So much of what `limit` allows. `seconds`: of a WINDOW its length, of a BUDGET for how long it is remembered.
    `holder`: of PLACES, whose they are; who holds one needs no second."""

    key: str
    kind: Kind
    amount: int
    limit: int
    seconds: float
    holder: str = ""


def allowance_of(values: Mapping[str, Any]) -> Allowance:
    """Of one's fields as plain values."""
    return Allowance(**{**values, "kind": Kind(values["kind"])})


@dataclass(frozen=True, slots=True)
class Refused:
    """The allowance that can't be had. `used` holds what is reserved, `settled` does not. `seconds`: until a WINDOW has
    room for it; None where it never has, and where that can't be known."""

    allowance: Allowance
    used: int
    settled: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Unbegun:
    """The BUDGET of which it is not known what was spent: `begin` has to say."""

    allowance: Allowance


@dataclass(frozen=True, slots=True)
class Opening:
    """Of a BUDGET. `wait_s`: after so many seconds it is worth another try, somebody else being at it. `number`: whose
    it is; None where it is not this caller's, or not any more to be done. `known_since`: what was reserved from then
    on, in seconds of the epoch, is still there; None where nobody can say."""

    wait_s: float = 0.0
    number: int | None = None
    known_since: float | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a reservation has come to: an amount for each of what was `asked`; of PLACES it is of no account. `found`:
    by somebody whom `Leases.expired` has told of it; where it is not there any more, that is nothing to count."""

    reservation: str
    asked: Sequence[Allowance]
    amounts: Sequence[int]
    found: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A reservation that is to be held, with its note, a line; without anything asked it is a lease alone."""

    reservation: str
    note: str
    asked: Sequence[Allowance] = ()


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A process that may have reservations of the organisation. `until`: as the store counts time."""

    name: str
    organisation: str
    until: str


@dataclass(frozen=True, slots=True)
class Expired:
    """A reservation whose process has not been heard of for its lease, with its note."""

    reservation: str
    note: str
    asked: Sequence[Allowance]
