"""Tickets: read as they were signed, by every key of the ring; and refused when any byte is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.errors import BadRequest, TicketRefused
from lazypix.signing.links import KeyRing, LinkKey, new_key
from lazypix.signing.tickets import LONGEST_TEXT, Ticket, seal, unseal

RING = KeyRing.of(["first:a-secret-of-many-characters-1", "second:a-secret-of-many-characters-2"])
NOW_S = 1_700_000_000
PLAIN = Ticket(ident="cat", expires_at=NOW_S + 60)
TEXT = seal(RING, Ticket(ident="cat", expires_at=NOW_S + 60, max_bytes=1000, formats=("jpg",), owner="0123456789ab"))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TICKETS = st.builds(
    Ticket,
    ident=st.text("abcXYZ019_-", min_size=1, max_size=40),
    expires_at=st.integers(NOW_S + 1, NOW_S + 10**6),
    max_bytes=st.none() | st.integers(1, 2**40),
    max_pixels=st.none() | st.integers(1, 2**40),
    formats=st.lists(st.sampled_from(["jpg", "png", "webp"]), unique=True).map(tuple),
    sizes=st.sampled_from(["", "100x50", "100x50,20x0"]),
    metadata=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    owner=st.none() | st.just("0123456789ab"),
)


@given(TICKETS)
def test_a_ticket_is_read_as_it_was_signed(ticket: Ticket) -> None:
    assert unseal(RING, seal(RING, ticket), now_s=NOW_S) == ticket


@given(at=st.integers(0, len(TEXT) - 1), other=st.characters(codec="latin-1"))
def test_a_ticket_with_another_character_is_refused(at: int, other: str) -> None:
    changed = TEXT[:at] + other + TEXT[at + 1 :]
    if changed == TEXT:
        assert unseal(RING, changed, now_s=NOW_S).ident == "cat"
    else:
        with pytest.raises(TicketRefused):
            unseal(RING, changed, now_s=NOW_S)


@given(st.integers(0, len(TEXT)), st.text(max_size=10))
def test_a_ticket_that_was_cut_or_lengthened_is_refused(at: int, more: str) -> None:
    changed = TEXT[:at] + more
    if changed != TEXT:
        with pytest.raises(TicketRefused):
            unseal(RING, changed, now_s=NOW_S)


@given(st.text(max_size=200))
def test_no_other_text_is_a_ticket(text: str) -> None:
    with pytest.raises(TicketRefused):
        unseal(RING, text, now_s=NOW_S)


def test_every_bit_of_the_mac_counts() -> None:
    """The last character of base64 has bits that decoding drops: they must not give a second valid text."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for other in alphabet.replace(TEXT[-1], ""):
        with pytest.raises(TicketRefused):
            unseal(RING, TEXT[:-1] + other, now_s=NOW_S)


def test_a_ticket_is_good_until_it_expires() -> None:
    text = seal(RING, PLAIN)
    assert unseal(RING, text, now_s=NOW_S + 59.9) == PLAIN
    with pytest.raises(TicketRefused, match="expired 0 seconds ago"):
        unseal(RING, text, now_s=NOW_S + 60)
    with pytest.raises(TicketRefused, match="expired 3540 seconds ago"):
        unseal(RING, text, now_s=NOW_S + 3600)


def test_keys_are_changed_without_breaking_tickets() -> None:
    text = seal(RING, PLAIN)
    assert text.startswith("first.")
    turned = KeyRing(RING.keys[::-1])
    assert seal(turned, PLAIN).startswith("second.")
    assert unseal(turned, text, now_s=NOW_S) == PLAIN
    for other in (KeyRing(RING.keys[1:]), KeyRing(), KeyRing.of([new_key("first")])):
        with pytest.raises(TicketRefused, match="not signed here"):
            unseal(other, text, now_s=NOW_S)


def test_the_same_key_signs_nothing_else_that_could_be_taken_for_a_ticket() -> None:
    key = LinkKey.parse("first:a-secret-of-many-characters-1")
    link = KeyRing((key,)).sign("/image/cat.jpg")
    with pytest.raises(TicketRefused):
        unseal(RING, link.partition("?s=")[2], now_s=NOW_S)


def test_a_ticket_that_says_too_much_is_refused() -> None:
    long = Ticket(ident="cat", expires_at=NOW_S, metadata={"text": "x" * LONGEST_TEXT})
    with pytest.raises(BadRequest, match="shorter metadata"):
        seal(RING, long)
