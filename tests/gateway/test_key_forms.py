"""API keys: their form, and their keyed hashes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.key_forms import HINT_CHARACTERS, PREFIX, KeyForms

ONE, OTHER = b"1" * 32, b"2" * 32


def test_no_two_are_alike_and_the_hint_is_their_beginning() -> None:
    forms = KeyForms([ONE])
    made = [forms.make() for _ in range(500)]
    assert len({key for key, _ in made}) == 500
    assert {len(key) for key, _ in made} == {50}
    assert all(key.startswith(hint) and len(hint) == len(PREFIX) + HINT_CHARACTERS for key, hint in made)


def test_a_digest_is_of_this_key_and_this_deployment() -> None:
    forms = KeyForms([ONE])
    (key, _), (another, _) = forms.make(), forms.make()
    assert forms.digests(key) == KeyForms([ONE]).digests(key)
    assert forms.digests(key) != forms.digests(another)
    assert forms.digests(key) != KeyForms([OTHER]).digests(key)
    assert KeyForms([OTHER, ONE]).digests(key)[1] == forms.digests(key)[0]
    assert not any(key[4:20] in digest for digest in forms.digests(key))


@given(st.integers(0, 49), st.characters(codec="ascii"))
def test_a_slip_of_the_pen_is_no_key(position: int, character: str) -> None:
    forms = KeyForms([ONE])
    key, _ = forms.make()
    slip = key[:position] + character + key[position + 1 :]
    assert bool(forms.digests(slip)) is (slip == key)


@pytest.mark.parametrize(
    "text", ["", "aim_", "aim_" + "0" * 46, "AIM_" + "0" * 46, "eyJhbGciOiJIUzI1NiJ9.e30.x", "aim_é"]
)
def test_what_is_no_key(text: str) -> None:
    assert KeyForms([ONE]).digests(text) == ()
