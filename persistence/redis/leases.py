"""Leases on Redis: what a process that dies leaves is found by the others.

An organisation's keys are where its slot is, so who may have left something in which of them is kept in a key of its
own: each process enrols for an organisation for longer than a lease, and renews that.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from uuid_utils import uuid7

from ..reservation_records import Allowance, Enrolment, Expired, Kind
from . import reservation_scripts as scripts
from .client import RedisClient
from .keys import name_of
from .reservations import known_of, leases_of, milliseconds

_ENROLLED = name_of("limited", None, "enrolled")


class RedisLeases:
    """Implements `ports.Leases`. Every call may be repeated where the connection breaks, but those that tell of
    something once."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._me = uuid7().hex

    async def enrol(self, organisations: Sequence[str], *, lease_s: float) -> None:
        names = [f"{self._me} {organisation}" for organisation in organisations]
        await self._client.run(scripts.ENROL, [_ENROLLED], [milliseconds(lease_s), *names])

    async def prolong(self, organisation: str, reservations: Sequence[str], *, lease_s: float) -> Sequence[str]:
        arguments: list[str | int] = [milliseconds(lease_s), *reservations]
        lost: list[str] = await self._client.run(scripts.PROLONG, leases_of(organisation), arguments)
        return lost

    async def left(self, *, lease_s: float, limit: int) -> Sequence[Enrolment]:
        found = await self._client.run(scripts.LEFT, [_ENROLLED], [milliseconds(lease_s), limit], again=False)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [Enrolment(name, name.partition(" ")[2], until) for name, until in pairs]

    async def expired(self, organisation: str, *, lease_s: float, limit: int) -> Sequence[Expired]:
        arguments = [milliseconds(lease_s), limit]
        found = await self._client.run(scripts.EXPIRED, leases_of(organisation), arguments, again=False)
        return [_expired(*found[n : n + 2]) for n in range(0, len(found), 2)]

    async def strike(self, enrolment: Enrolment) -> None:
        await self._client.run(scripts.STRIKE, [_ENROLLED], [enrolment.name, enrolment.until])

    async def nothing_lost(self, organisation: str) -> None:
        ms = scripts.KEPT_S * 1000
        await self._client.ask(lambda client: client.set(known_of(organisation), 0, nx=True, px=ms))


def _expired(reservation: str, record: str) -> Expired:
    note, items, _ = record.split("\n")
    asked = tuple(
        Allowance(each["name"], Kind(each["kind"]), each["amount"], each["limit"], each["ms"] / 1000, each["holder"])
        for each in orjson.loads(items)
    )
    return Expired(reservation, note, asked)
