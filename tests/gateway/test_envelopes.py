"""Envelopes: opened by this deployment, for this organisation and provider, and by nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envelopes import Envelopes
from gateway.rotate_command import reseal_all
from resolvers.provider_keys import SealedElsewhereError
from tests.persistence.audit import noted
from tests.persistence.provider_keys import MemoryProviderKeys, provider_key

ONE, OTHER = b"1" * 32, b"2" * 32
ACME = {"organisation": "acme", "provider": "openai"}


@given(st.text(), st.text(), st.text())
def test_what_is_sealed_opens(text: str, organisation: str, provider: str) -> None:
    envelopes = Envelopes([ONE])
    sealed = envelopes.seal(text, organisation=organisation, provider=provider)
    assert envelopes.open(sealed, organisation=organisation, provider=provider) == text
    assert sealed != envelopes.seal(text, organisation=organisation, provider=provider)


@pytest.mark.parametrize(
    "moved", [{"organisation": "globex"}, {"provider": "groq"}, {"organisation": "acmeo", "provider": "penai"}]
)
def test_in_another_s_place_it_does_not_open(moved: dict[str, str]) -> None:
    envelopes = Envelopes([ONE])
    sealed = envelopes.seal("sk-secret", **ACME)
    for attempt in (envelopes.open, envelopes.resealed):
        with pytest.raises(SealedElsewhereError):
            attempt(sealed, **{**ACME, **moved})


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
        name = {"organisation": f"org-{number}", "provider": "openai"}
        sealing = after if number == 4 else before
        await store.put(provider_key(**name, sealed=sealing.seal(f"key {number}", **name)), audit=noted)
    strange = {"organisation": "org-x", "provider": "groq"}
    await store.put(provider_key(**strange, sealed=Envelopes([b"3" * 32]).seal("lost", **strange)), audit=noted)
    rotated = await reseal_all(store, after)
    assert (rotated.seen, rotated.resealed, rotated.unreadable) == (11, 9, (("org-x", "groq"),))
    alone = Envelopes([OTHER])
    for number in range(10):
        key = store.keys[f"org-{number}", "openai"]
        assert alone.open(key.sealed, organisation=key.organisation, provider=key.provider) == f"key {number}"
    assert (await reseal_all(store, after)).resealed == 0
