"""Envelopes: opened by this deployment, for this organisation and provider, and by nothing else."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envelopes import WEBHOOK_SECRET, Envelopes
from gateway.rotate_command import reseal_all, reseal_webhooks
from persistence.migrations.sqlite import migrate
from persistence.sqlite.database import open_database
from persistence.sqlite.webhooks import SQLiteWebhooks
from resolvers.provider_keys import SealedElsewhereError
from tests.persistence.audit import noted
from tests.persistence.entries import NOON
from tests.persistence.provider_keys import MemoryProviderKeys, provider_key
from tests.persistence.webhooks import webhook

ONE, OTHER = b"1" * 32, b"2" * 32
ACME = {"organisation": "acme", "name": "openai"}


@given(st.text(), st.text(), st.text())
def test_what_is_sealed_opens(text: str, organisation: str, provider: str) -> None:
    envelopes = Envelopes([ONE])
    sealed = envelopes.seal(text, organisation=organisation, name=provider)
    assert envelopes.open(sealed, organisation=organisation, name=provider) == text
    assert sealed != envelopes.seal(text, organisation=organisation, name=provider)


@pytest.mark.parametrize(
    "moved", [{"organisation": "globex"}, {"name": "groq"}, {"organisation": "acmeo", "name": "penai"}]
)
def test_in_another_s_place_it_does_not_open(moved: dict[str, str]) -> None:
    envelopes = Envelopes([ONE])
    sealed = envelopes.seal("sk-secret", **ACME)
    for attempt in (envelopes.open, envelopes.resealed):
        with pytest.raises(SealedElsewhereError):
            attempt(sealed, **{**ACME, **moved})


def test_as_another_kind_of_secret_it_does_not_open() -> None:
    sealed = Envelopes([ONE]).seal("sk-secret", **ACME)
    with pytest.raises(SealedElsewhereError):
        Envelopes([ONE], WEBHOOK_SECRET).open(sealed, **ACME)


def test_by_another_master_it_does_not_open() -> None:
    sealed = Envelopes([ONE]).seal("sk-secret", **ACME)
    with pytest.raises(SealedElsewhereError):
        Envelopes([OTHER]).open(sealed, **ACME)
    assert Envelopes([OTHER, ONE]).open(sealed, **ACME) == "sk-secret"


def test_changed_anywhere_it_does_not_open() -> None:
    envelopes = Envelopes([ONE])
    raw = base64.b64decode(envelopes.seal("sk-secret", **ACME).removeprefix("env:v1:"))
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        with pytest.raises(SealedElsewhereError):
            envelopes.open("env:v1:" + base64.b64encode(changed).decode(), **ACME)
    for text in ("", "env:v1:", "env:v1:!", "sk-secret", "env:v1:" + base64.b64encode(raw[:40]).decode()):
        with pytest.raises(SealedElsewhereError):
            envelopes.open(text, **ACME)


def test_a_new_master_wraps_anew_and_then_stands_alone() -> None:
    sealed = Envelopes([ONE]).seal("sk-secret", **ACME)
    both = Envelopes([OTHER, ONE])
    fresh = both.resealed(sealed, **ACME)
    assert fresh is not None
    assert both.resealed(fresh, **ACME) is None
    assert Envelopes([OTHER]).open(fresh, **ACME) == "sk-secret"


async def test_all_of_a_store_comes_under_the_new_master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.rotate_command.PAGE", 3)
    store, before, after = MemoryProviderKeys(), Envelopes([ONE]), Envelopes([OTHER, ONE])
    for number in range(10):
        sealing, whose = after if number == 4 else before, f"org-{number}"
        sealed = sealing.seal(f"key {number}", organisation=whose, name="openai")
        await store.put(provider_key(organisation=whose, sealed=sealed), audit=noted)
    lost = Envelopes([b"3" * 32]).seal("lost", organisation="org-x", name="groq")
    await store.put(provider_key(organisation="org-x", provider="groq", sealed=lost), audit=noted)
    rotated = await reseal_all(store, after)
    assert (rotated.seen, rotated.resealed, rotated.unreadable) == (11, 9, (("org-x", "groq"),))
    alone = Envelopes([OTHER])
    for number in range(10):
        key = store.keys[f"org-{number}", "openai"]
        assert alone.open(key.sealed, organisation=key.organisation, name=key.provider) == f"key {number}"
    assert (await reseal_all(store, after)).resealed == 0


async def test_webhooks_secrets_come_under_the_new_master(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gateway.rotate_command.PAGE", 2)
    before, after = (Envelopes(masters, WEBHOOK_SECRET) for masters in ([ONE], [OTHER, ONE]))
    migrate(tmp_path / "webhooks.db")
    async with open_database(tmp_path / "webhooks.db") as database:
        store = SQLiteWebhooks(database)
        for number in range(5):
            of = {"organisation": f"org-{number}", "name": f"whk_{number}"}
            secrets = [before.seal(f"{each} {number}", **of) for each in ("present", "former")]
            former = {"former": secrets[1], "former_until": NOON} if number % 2 else {}
            made = webhook(organisation=of["organisation"], id=of["name"], sealed=secrets[0], **former)
            await store.create(made, at_most=9, audit=noted)
        await store.create(webhook(organisation="org-x", id="whk_x", sealed="lost"), at_most=9, audit=noted)
        rotated = await reseal_webhooks(store, after)
        assert (rotated.seen, rotated.resealed, rotated.unreadable) == (6, 5, (("org-x", "whk_x"),))
        alone = Envelopes([OTHER], WEBHOOK_SECRET)
        for number in range(5):
            (found,) = await store.of(f"org-{number}")
            of = {"organisation": found.organisation, "name": found.id}
            assert alone.open(found.sealed, **of) == f"present {number}"
            assert (found.former is None) is (number % 2 == 0)
            assert found.former is None or alone.open(found.former, **of) == f"former {number}"
        assert (await reseal_webhooks(store, after)).resealed == 0
