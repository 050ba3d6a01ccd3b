"""API keys as use cases: who may make which, and what becomes of one that is changed, rotated or revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from math import inf
from typing import Any

import pytest

from gateway.key_forms import KeyForms
from persistence.key_records import ApiKey, Grant
from resolvers import api_keys as module
from resolvers.api_keys import ApiKeys, KeyChange, NewKey
from resolvers.errors import (
    BadUserInputError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ServiceUnavailableError,
    UnauthenticatedError,
)
from resolvers.key_cache import KeyCache
from resolvers.key_entrance import KeyEntrance
from resolvers.principal import UNLIMITED, Limits, Principal, Role, Scope, scopes_of
from tests.persistence.api_keys import MemoryApiKeys
from tests.persistence.entries import NOON

ADMIN = Principal("admin", "acme", scopes_of((), [Role.ADMIN]), inf)
CALLS = Grant(scopes=(Scope.COMPLETIONS_WRITE.value,))


class Desk:
    """The use cases, and the door, by one clock that the test turns."""

    def __init__(self) -> None:
        self.time = NOON
        self.store = MemoryApiKeys()
        forms = KeyForms([b"1" * 32])
        cache = KeyCache(self.store, lambda: (self.time - NOON).total_seconds())
        self.keys = ApiKeys(self.store, cache, forms, lambda: self.time)
        self.door = KeyEntrance(cache, forms, self.store, lambda: self.time)

    async def made(self, principal: Principal = ADMIN, **changes: Any) -> tuple[str, ApiKey]:
        return await self.keys.create(principal, NewKey(**{"name": "A server", "grant": CALLS} | changes))

    async def refusal(self, secret: str, address: str | None = None) -> str:
        with pytest.raises(UnauthenticatedError) as caught:
            await self.door.principal(secret, address)
        assert secret[4:20] not in caught.value.message
        return caught.value.message


def minted(
    organisation: str = "acme",
    scopes: Sequence[Scope] = (Scope.COMPLETIONS_WRITE,),
    limits: Limits = UNLIMITED,
) -> Principal:
    return Principal("key_1", organisation, frozenset(scopes), inf, limits)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_who_presents_a_key_is_its_principal(desk: Desk) -> None:
    grant = Grant(scopes=("usage:read",), roles=("caller",), models=("openai/*",), configs=("a",))
    secret, key = await desk.made(grant=grant, expires_at=NOON + timedelta(days=1))
    assert secret.startswith(key.hint)
    assert (key.created_by, key.revision) == ("admin", 1)
    assert await desk.door.principal(secret, None) == Principal(
        subject=key.id,
        organisation="acme",
        scopes=scopes_of(["usage:read"], ["caller"]),
        expires_at=(NOON + timedelta(days=1)).timestamp(),
        limits=Limits(models=("openai/*",), configs=("a",)),
        key_id=key.id,
    )
    secret, key = await desk.made()
    assert (await desk.door.principal(secret, None)).expires_at == inf


async def test_what_a_key_has_minted_ends_with_it(desk: Desk) -> None:
    (_, revoked), (_, short) = await desk.made(), await desk.made(expires_at=NOON + timedelta(minutes=5))
    for key in (revoked, short):
        await desk.door.check_maker(minted(), key.id)
    await desk.keys.revoke(ADMIN, revoked.id)
    for organisation, key_id in (("acme", revoked.id), ("globex", short.id), ("acme", "key_none")):
        with pytest.raises(UnauthenticatedError):
            await desk.door.check_maker(minted(organisation), key_id)
    desk.time += timedelta(minutes=4)
    await desk.door.check_maker(minted(), short.id)
    desk.store.down = True
    await desk.door.check_maker(minted(), short.id)
    desk.time += timedelta(minutes=1)
    with pytest.raises(UnauthenticatedError):
        await desk.door.check_maker(minted(), short.id)


async def test_what_a_key_has_minted_may_no_more_than_it_may_now(desk: Desk) -> None:
    caller = Grant(roles=("caller", "billing"))
    _, key = await desk.made(grant=caller)
    report = minted(scopes=(Scope.USAGE_READ,))
    of_one_model = minted(limits=Limits(models=("openai/gpt-4.1",), networks=("192.0.2.1",)))
    for narrower, refused in (
        (caller, []),
        (replace(caller, models=("openai/*",), networks=("192.0.2.0/24",)), [minted(), report]),
        (replace(caller, models=("openai/gpt-4.1",)), [minted()]),
        (replace(caller, configs=("greet",)), [minted(), of_one_model]),
        (replace(caller, roles=("billing",)), [minted(), of_one_model]),
        (replace(caller, roles=("caller",)), [report]),
        (caller, []),
    ):
        await desk.keys.change(ADMIN, key.id, KeyChange(grant=narrower))
        for made in (minted(), of_one_model, report):
            if made in refused:
                with pytest.raises(UnauthenticatedError, match="may no longer do all that it may"):
                    await desk.door.check_maker(made, key.id)
            else:
                await desk.door.check_maker(made, key.id)


async def test_the_key_itself_is_kept_nowhere(desk: Desk) -> None:
    secret, _ = await desk.made()
    assert secret not in f"{desk.store.keys}{desk.store.digests}{vars(desk.keys.cache)}"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": ""}, ("input", "name")),
        ({"name": " "}, ("input", "name")),
        ({"name": "a\nb"}, ("input", "name")),
        ({"name": "x" * 101}, ("input", "name")),
        ({"grant": Grant()}, ("input", "scopes")),
        ({"grant": Grant(scopes=("completions:write", "all"))}, ("input", "scopes", 1)),
        ({"grant": Grant(roles=("root",))}, ("input", "roles", 0)),
        ({"grant": replace(CALLS, models=("gpt-4.1",))}, ("input", "models", 0)),
        ({"grant": replace(CALLS, models=("openai/gpt", "*/x"))}, ("input", "models", 1)),
        ({"grant": replace(CALLS, models=tuple(f"openai/{n}" for n in range(101)))}, ("input", "models")),
        ({"grant": replace(CALLS, configs=("A",))}, ("input", "configs", 0)),
        ({"grant": replace(CALLS, networks=("10.0.0.1/8",))}, ("input", "networks", 0)),
        ({"grant": replace(CALLS, networks=("example.com",))}, ("input", "networks", 0)),
        ({"expires_at": NOON}, ("input", "expiresAt")),
        ({"expires_at": NOON + timedelta(days=3651)}, ("input", "expiresAt")),
    ],
)
async def test_what_is_no_key_is_refused_by_name(desk: Desk, changes: dict[str, Any], path: Sequence[Any]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await desk.made(**changes)
    assert caught.value.path == path
    assert desk.store.keys == {}


LIMITED = replace(
    ADMIN,
    scopes=frozenset({Scope.KEYS_WRITE, Scope.COMPLETIONS_WRITE}),
    limits=Limits(("openai/*", "mistral/small"), ("a", "b"), ("10.0.0.0/8", "2001:db8::/32")),
)
WITHIN = Grant(("completions:write",), (), ("openai/gpt-4.1", "mistral/small"), ("b",), ("10.1.0.0/16", "2001:db8::1"))


@pytest.mark.parametrize(
    "beyond",
    [
        {"scopes": ("usage:read",)},
        {"roles": ("caller",)},
        {"models": None},
        {"models": ("mistral/*",)},
        {"models": ("mistral/large",)},
        {"configs": None},
        {"configs": ("a", "c")},
        {"networks": None},
        {"networks": ("0.0.0.0/0",)},
        {"networks": ("11.0.0.1",)},
        {"networks": ("::/0",)},
    ],
)
async def test_nobody_gives_what_he_has_not(desk: Desk, beyond: dict[str, Any]) -> None:
    _, mine = await desk.made(LIMITED, grant=WITHIN)
    _, stronger = await desk.made(grant=replace(WITHIN, **beyond))
    attempts = [
        desk.made(LIMITED, grant=replace(WITHIN, **beyond)),
        desk.keys.change(LIMITED, mine.id, KeyChange(grant=replace(WITHIN, **beyond))),
        desk.keys.change(LIMITED, stronger.id, KeyChange(name="mine")),
        desk.keys.rotate(LIMITED, stronger.id, overlap_s=0),
    ]
    for attempt in attempts:
        with pytest.raises(ForbiddenError):
            await attempt
    assert (await desk.keys.get(ADMIN, stronger.id)).revision == 1


async def test_a_change_is_seen_at_once(desk: Desk) -> None:
    secret, key = await desk.made()
    await desk.door.principal(secret, None)
    changed = await desk.keys.change(ADMIN, key.id, KeyChange(grant=Grant(roles=("viewer",)), name="Another"))
    assert (changed.name, changed.revision) == ("Another", 2)
    assert (await desk.door.principal(secret, None)).scopes == scopes_of([], ["viewer"])
    ending = await desk.keys.change(ADMIN, key.id, KeyChange(expires_at=NOON + timedelta(hours=1)))
    assert (ending.name, ending.expires_at) == ("Another", NOON + timedelta(hours=1))
    assert (await desk.keys.change(ADMIN, key.id, KeyChange(endless=True))).expires_at is None


async def test_a_change_upon_another_is_a_conflict(desk: Desk) -> None:
    _, key = await desk.made()
    await desk.keys.change(ADMIN, key.id, KeyChange(name="one"), expected_revision=1)
    with pytest.raises(ConflictError):
        await desk.keys.change(ADMIN, key.id, KeyChange(name="two"), expected_revision=1)


async def test_a_key_opens_until_it_expires(desk: Desk) -> None:
    secret, _ = await desk.made(expires_at=NOON + timedelta(seconds=10))
    desk.time += timedelta(seconds=9.999)
    await desk.door.principal(secret, None)
    desk.time += timedelta(seconds=0.001)
    assert await desk.refusal(secret) == "the API key has expired"


async def test_both_serve_while_they_overlap(desk: Desk) -> None:
    old, key = await desk.made()
    new, rotated = await desk.keys.rotate(ADMIN, key.id, overlap_s=60)
    assert (rotated.id, new.startswith(rotated.hint), new != old) == (key.id, True, True)
    assert (await desk.door.principal(old, None)).expires_at == (NOON + timedelta(seconds=60)).timestamp()
    assert (await desk.door.principal(new, None)).key_id == key.id
    desk.time += timedelta(seconds=60)
    assert await desk.refusal(old) == "the API key was replaced by a new one"
    await desk.door.principal(new, None)
    for wrong in (-1, 7 * 24 * 3600 + 1):
        with pytest.raises(BadUserInputError):
            await desk.keys.rotate(ADMIN, key.id, overlap_s=wrong)


async def test_a_revoked_key_opens_nothing_from_then_on(desk: Desk) -> None:
    secret, key = await desk.made()
    await desk.door.principal(secret, None)
    revoked = await desk.keys.revoke(ADMIN, key.id)
    assert (revoked.revoked_at, revoked.revoked_by) == (NOON, "admin")
    assert await desk.refusal(secret) == "the API key is revoked"
    assert await desk.keys.revoke(ADMIN, key.id) == revoked
    for attempt in (desk.keys.change(ADMIN, key.id, KeyChange(name="x")), desk.keys.rotate(ADMIN, key.id, overlap_s=0)):
        with pytest.raises(ConflictError):
            await attempt


@pytest.mark.parametrize(
    ("address", "opens"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        (None, False),
        ("", False),
        ("testclient", False),
    ],
)
async def test_a_key_opens_from_its_networks_alone(desk: Desk, address: str | None, opens: bool) -> None:
    secret, _ = await desk.made(grant=replace(CALLS, networks=("10.0.0.0/8", "2001:db8::/32")))
    if opens:
        await desk.door.principal(secret, address)
    else:
        assert await desk.refusal(secret, address) == "the API key may not be used from this address"


async def test_what_is_no_key_of_ours(desk: Desk) -> None:
    secret, _ = await desk.made()
    other, _ = KeyForms([b"2" * 32]).make()
    assert await desk.refusal(other) == "there is no such API key"
    assert await desk.refusal(secret[:-1]) == "that is no API key: it was cut off or changed on its way"


async def test_another_organisation_has_none_of_it(desk: Desk) -> None:
    """The same answer as for one that never was."""
    _, key = await desk.made()
    stranger = replace(ADMIN, organisation="globex")
    said = set()
    for key_id in (key.id, key.id[:-1] + ("0" if key.id[-1] != "0" else "1"), "key_x", ""):
        for attempt in (
            desk.keys.get(stranger, key_id),
            desk.keys.change(stranger, key_id, KeyChange(name="x")),
            desk.keys.rotate(stranger, key_id, overlap_s=0),
            desk.keys.revoke(stranger, key_id),
        ):
            with pytest.raises(NotFoundError) as caught:
                await attempt
            said.add(caught.value.message)
    assert said == {"no such API key"}
    assert (await desk.keys.page(stranger, first=9, after=None, active=False)).keys == ()


async def test_a_key_gives_none_that_outlasts_itself(desk: Desk) -> None:
    """Nor does it prolong itself; and what was replaced does not replace what has come in its place."""
    week = NOON + timedelta(days=7)
    secret, key = await desk.made(grant=Grant(roles=("admin",)), expires_at=week)
    _, endless = await desk.made()
    short = await desk.door.principal(secret, None)
    later = week + timedelta(milliseconds=1)
    attempts: list[Any] = [
        desk.made(short),
        desk.made(short, expires_at=later),
        desk.keys.change(short, key.id, KeyChange(endless=True)),
        desk.keys.change(short, key.id, KeyChange(expires_at=later)),
        desk.keys.rotate(short, endless.id, overlap_s=0),
    ]
    for attempt in attempts:
        with pytest.raises(ForbiddenError, match="your own key ends before"):
            await attempt
    await desk.made(short, expires_at=week)
    await desk.keys.change(short, endless.id, KeyChange(name="Another name"))
    await desk.keys.change(short, endless.id, KeyChange(expires_at=week))
    newest, _ = await desk.keys.rotate(short, key.id, overlap_s=3600)
    replaced = await desk.door.principal(secret, None)
    with pytest.raises(ForbiddenError, match="your own key ends before"):
        await desk.keys.rotate(replaced, key.id, overlap_s=0)
    await desk.door.principal(newest, None)
    await desk.made(replace(short, key_id=None))


async def test_so_many_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    made = [await desk.made() for _ in range(2)]
    with pytest.raises(ConflictError):
        await desk.made()
    await desk.keys.revoke(ADMIN, made[0][1].id)
    await desk.made()


async def test_pages(desk: Desk) -> None:
    keys = [(await desk.made())[1] for _ in range(5)]
    await desk.keys.revoke(ADMIN, keys[4].id)
    page = await desk.keys.page(ADMIN, first=3, after=None, active=True)
    assert ([each.id for each in page.keys], page.more) == ([key.id for key in keys[3:0:-1]], True)
    rest = await desk.keys.page(ADMIN, first=3, after=page.keys[-1].id, active=True)
    assert ([each.id for each in rest.keys], rest.more) == ([keys[0].id], False)
    for first, after in ((0, None), (101, None), (5, "not-a-cursor")):
        with pytest.raises(BadUserInputError):
            await desk.keys.page(ADMIN, first=first, after=after, active=False)


async def test_while_the_store_is_away(desk: Desk) -> None:
    """Keys of the last five minutes open; nothing is written."""
    secret, key = await desk.made()
    unseen, _ = await desk.made()
    await desk.door.principal(secret, None)
    desk.store.down = True
    for seconds in (1, 10, 299):
        desk.time = NOON + timedelta(seconds=seconds)
        await desk.door.principal(secret, None)
    attempts: list[Any] = [
        desk.door.principal(unseen, None),
        desk.made(),
        desk.keys.revoke(ADMIN, key.id),
        desk.keys.page(ADMIN, first=5, after=None, active=False),
    ]
    desk.time = NOON + timedelta(seconds=300)
    attempts.append(desk.door.principal(secret, None))
    for attempt in attempts:
        with pytest.raises(ServiceUnavailableError):
            await attempt


async def test_uses_are_noted_now_and_then(desk: Desk) -> None:
    secret, key = await desk.made()
    await desk.door.principal(secret, None)
    desk.time += timedelta(seconds=5, microseconds=1234)
    await desk.door.principal(secret, None)
    assert (await desk.keys.get(ADMIN, key.id)).last_used_at is None
    await desk.door.flush()
    assert (await desk.keys.get(ADMIN, key.id)).last_used_at == NOON + timedelta(seconds=5, milliseconds=1)
    desk.time += timedelta(seconds=5)
    await desk.door.principal(secret, None)
    desk.store.down = True
    await desk.door.flush()
    desk.store.down = False
    await desk.door.flush()
    assert (await desk.keys.get(ADMIN, key.id)).last_used_at == NOON + timedelta(seconds=10, milliseconds=1)
