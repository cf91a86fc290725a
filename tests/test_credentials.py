"""API keys as texts: read as they are written, refused when anything is changed, and shown nowhere."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.credentials import SCOPES, ApiKey, Scope, allows, check_scopes
from lazypix.errors import BadRequest


def test_a_key_is_read_as_it_is_written() -> None:
    key = ApiKey.new()
    assert key.text.startswith(f"lpx_{key.id}_")
    assert ApiKey.parse(key.text) == key


def test_two_keys_have_nothing_in_common() -> None:
    one, other = ApiKey.new(), ApiKey.new()
    assert one.id != other.id
    assert one.secret != other.secret


def test_only_the_hash_of_the_secret_is_kept_and_nothing_shows_the_secret() -> None:
    key = ApiKey.new()
    assert key.hash == hashlib.sha256(key.secret.encode()).hexdigest()
    assert key.matches(key.hash)
    assert not key.matches(ApiKey.new().hash)
    assert key.secret not in repr(key)
    assert key.secret not in f"{key}"


@given(at=st.integers(0, 65), other=st.characters(codec="utf-8"))
def test_a_key_with_another_character_is_none(at: int, other: str) -> None:
    text = ApiKey.new().text
    changed = text[:at] + other + text[at + 1 :]
    assert len(text) == 66
    assert changed == text or ApiKey.parse(changed) is None


@given(st.text(max_size=100))
def test_no_other_text_is_a_key(text: str) -> None:
    assert ApiKey.parse(text) is None


@pytest.mark.parametrize("cut", [1, 5, 20, 65])
def test_a_key_that_was_cut_is_none(cut: int) -> None:
    assert ApiKey.parse(ApiKey.new().text[:-cut]) is None


@pytest.mark.parametrize(
    ("has", "may"),
    [
        (["upload"], {"upload"}),
        (["delete"], {"delete"}),
        (["upload", "delete"], {"upload", "delete"}),
        (["admin"], {"upload", "delete", "admin"}),
        ([], set()),
    ],
)
def test_a_key_may_do_what_its_scopes_say_and_admin_holds_all(has: list[str], may: set[Scope]) -> None:
    assert {scope for scope in SCOPES if allows(has, scope)} == may


def test_scopes_are_checked() -> None:
    assert check_scopes(["delete", "upload", "delete"]) == ("upload", "delete")
    with pytest.raises(BadRequest, match="scope='write' is not accepted; accepted: upload, delete, admin"):
        check_scopes(["upload", "write"])
    with pytest.raises(BadRequest, match="needs a scope"):
        check_scopes([])
