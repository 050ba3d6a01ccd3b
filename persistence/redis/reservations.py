"""Limits on Redis: what several processes take of them in one step."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from ..reservation_records import Allowance, Kept, Opening, Refused, Settled, Unbegun
from . import reservation_scripts as scripts
from .client import RedisClient
from .keys import name_of


class RedisReservations:
    """Implements `ports.Reservations`. Every call may be repeated where the connection breaks."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def reserve(
        self, organisation: str, reservation: str, asked: Sequence[Allowance], *, lease_s: float, note: str = ""
    ) -> Refused | Unbegun | None:
        keys = [*leases_of(organisation), *(name_in(organisation, each) for each in asked)]
        arguments: list[str | int] = [reservation, milliseconds(lease_s), note, items_of(organisation, asked)]
        answer = await self._client.run(scripts.RESERVE, keys, arguments)
        if answer is None:
            return None
        allowance = asked[answer[0] - 1]
        if answer[1] == "unbegun":
            return Unbegun(allowance)
        _, _, used, settled, wait = answer
        return Refused(allowance, int(used), int(settled), None if wait < 0 else wait / 1000)

    async def keep(self, organisation: str, kept: Sequence[Kept], *, lease_s: float) -> None:
        arguments: list[str | int] = [milliseconds(lease_s)]
        for each in kept:
            arguments += [each.reservation, each.note, items_of(organisation, each.asked)]
        await self._client.run(scripts.KEEP, leases_of(organisation), arguments)

    async def settle(self, organisation: str, settled: Sequence[Settled]) -> Sequence[str]:
        names = (name_in(organisation, item) for each in settled for item in each.asked)
        told = [
            {"id": each.reservation, "found": each.found, "items": _settled_items(organisation, each)}
            for each in settled
        ]
        arguments = [orjson.dumps(told).decode()]
        left: list[str] = await self._client.run(scripts.SETTLE, [*leases_of(organisation), *names], arguments)
        return left

    async def open(self, organisation: str, budget: Allowance, *, grace_s: float) -> Opening:
        keys = [name_in(organisation, budget), known_of(organisation)]
        arguments = [milliseconds(budget.seconds), milliseconds(grace_s)]
        wait, number, *known = await self._client.run(scripts.OPEN, keys, arguments, again=False)
        return Opening(wait / 1000, number or None, int(known[0]) / 1000 if known else None)

    async def begin(self, organisation: str, budget: Allowance, spent: int, opening: Opening) -> None:
        arguments = [spent, milliseconds(budget.seconds), opening.number or 0]
        await self._client.run(scripts.BEGIN, [name_in(organisation, budget)], arguments)

    async def outdate(self, organisation: str, budgets: Sequence[Allowance]) -> None:
        await self._client.run(scripts.OUTDATE, [name_in(organisation, each) for each in budgets], [])

    async def used(self, organisation: str, asked: Sequence[Allowance]) -> Sequence[int | None]:
        keys = [name_in(organisation, each) for each in asked]
        if not keys:
            return []
        items = orjson.dumps([_item(organisation, each, 0) for each in asked]).decode()
        return [int(each) if each else None for each in await self._client.run(scripts.USED, keys, [items])]

    async def spent(self, organisation: str, budgets: Sequence[Allowance]) -> Sequence[int | None]:
        return [await self._spent(name_in(organisation, each)) for each in budgets]

    async def _spent(self, name: str) -> int | None:
        begun, settled = await self._client.ask(lambda client: client.hmget(name, ["begun", "settled"]))
        return None if begun is None else int(settled or 0)


def leases_of(organisation: str) -> Sequence[str]:
    """The keys of its leases, of what is held, of what somebody was told of, and of what was settled just now."""
    return [name_of("limit", organisation, each) for each in ("leases", "held", "told", "settled")]


def known_of(organisation: str) -> str:
    """The key of since when anything is known of it."""
    return name_of("limit", organisation, "known")


def name_in(organisation: str, asked: Allowance) -> str:
    return name_of("limit", organisation, f"of:{asked.key}")


def items_of(organisation: str, asked: Sequence[Allowance]) -> str:
    """As they are kept with a reservation."""
    return orjson.dumps([_item(organisation, each, each.amount) for each in asked]).decode()


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _item(organisation: str, asked: Allowance, amount: int) -> dict[str, object]:
    return {
        "name": asked.key,
        "key": name_in(organisation, asked),
        "kind": asked.kind,
        "amount": amount,
        "limit": asked.limit,
        "ms": milliseconds(asked.seconds),
        "holder": asked.holder,
    }


def _settled_items(organisation: str, settled: Settled) -> list[dict[str, object]]:
    pairs = zip(settled.asked, settled.amounts, strict=True)
    return [_item(organisation, allowance, amount) for allowance, amount in pairs]
