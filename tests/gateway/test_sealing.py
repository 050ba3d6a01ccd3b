"""Sealed settings: what was sealed opens with the same key, unchanged, and in no other way."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sealing import Sealer, SealError, is_sealed

PREFIX = "enc:v1:"
KEY, OTHER = b"k" * 32, b"o" * 32


@given(key=st.binary(min_size=32, max_size=32), text=st.text())
def test_round_trip(key: bytes, text: str) -> None:
    sealed = Sealer(key).seal(text)
    assert is_sealed(sealed)
    assert Sealer(key).open(sealed) == text


@given(text=st.text(min_size=8))
def test_each_seal_differs_and_shows_nothing(text: str) -> None:
    sealer = Sealer(KEY)
    first, second = sealer.seal(text), sealer.seal(text)
    assert first != second
    raw = base64.b64decode(first.removeprefix(PREFIX), validate=True)
    assert text.encode() not in raw
    assert len(raw) == 12 + len(text.encode()) + 16, "nonce, text, tag"


@given(text=st.text(), position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_one_changed_bit_does_not_open(text: str, position: int, bit: int) -> None:
    raw = bytearray(base64.b64decode(Sealer(KEY).seal(text).removeprefix(PREFIX)))
    raw[position % len(raw)] ^= 1 << bit
    with pytest.raises(SealError, match="changed"):
        Sealer(KEY).open(PREFIX + base64.b64encode(raw).decode())


@given(text=st.text(), kept=st.integers(min_value=0))
def test_a_part_does_not_open(text: str, kept: int) -> None:
    raw = base64.b64decode(Sealer(KEY).seal(text).removeprefix(PREFIX))
    with pytest.raises(SealError):
        Sealer(KEY).open(PREFIX + base64.b64encode(raw[: kept % len(raw)]).decode())


def test_another_key_does_not_open() -> None:
    sealed = Sealer(OTHER).seal("sk-secret")
    with pytest.raises(SealError) as caught:
        Sealer(KEY).open(sealed)
    assert "ENCRYPTION_KEY" in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert sealed.removeprefix(PREFIX) not in str(caught.value)


@given(junk=st.text())
def test_junk_is_refused_in_one_way(junk: str) -> None:
    with pytest.raises(SealError) as caught:
        Sealer(KEY).open(PREFIX + junk)
    assert caught.value.__suppress_context__
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_sealed_opens_only_as_a_setting() -> None:
    """The purpose is bound in: the same key may seal other things one day, and they can't be passed off as settings."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = bytes(12)
    raw = nonce + AESGCM(KEY).encrypt(nonce, b"sk-secret", b"another purpose")
    with pytest.raises(SealError):
        Sealer(KEY).open(PREFIX + base64.b64encode(raw).decode())


@pytest.mark.parametrize("text", ["", "sk-plain", "ENC:V1:AAAA", " enc:v1:AAAA", "enc:v2:AAAA"])
def test_plain_values_are_not_taken_for_sealed(text: str) -> None:
    assert not is_sealed(text)
