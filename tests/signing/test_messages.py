"""Signatures: what was signed is known again, and what was changed anywhere is not."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.signing.messages import (
    ID,
    SHORTEST_SECRET,
    SIGNATURE,
    TIMESTAMP,
    TOLERANCE_S,
    is_signed,
    secret_bytes,
    sign,
)

SECRET = b"a secret of enough bytes"
NOW = 1_700_000_000

ids = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="."), min_size=1, max_size=40)


def verified(
    headers: dict[str, str], body: bytes, *, secrets: tuple[bytes, ...] = (SECRET,), now_s: float = NOW
) -> bool:
    return is_signed(
        secrets, id=headers[ID], timestamp=headers[TIMESTAMP], signature=headers[SIGNATURE], body=body, now_s=now_s
    )


def test_the_signature_is_that_of_the_specification() -> None:
    """The example that the specification's libraries test themselves with."""
    secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = sign([secret], id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp_s=1614265330, body=b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(ids, st.binary(max_size=200))
def test_what_was_signed_is_known_again(id: str, body: bytes) -> None:
    assert verified(sign([SECRET], id=id, timestamp_s=NOW, body=body), body)


@given(ids, st.binary(min_size=1, max_size=200), st.data())
def test_any_changed_byte_is_refused(id: str, body: bytes, data: st.DataObject) -> None:
    headers = sign([SECRET], id=id, timestamp_s=NOW, body=body)
    place = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[place]))
    assert not verified(headers, body[:place] + bytes([other]) + body[place + 1 :])
    assert not verified(headers, body + b"\0")
    assert not verified(headers, body[:-1])
    assert not verified(headers | {ID: id + "x"}, body)
    assert not verified(headers | {TIMESTAMP: str(NOW - 1)}, body)
    mac = bytearray(base64.b64decode(headers[SIGNATURE].removeprefix("v1,")))
    mac[data.draw(st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
    assert not verified(headers | {SIGNATURE: "v1," + base64.b64encode(mac).decode()}, body)
    assert not verified(headers, body, secrets=(SECRET[:-1] + b"?",))


@pytest.mark.parametrize(
    "signature", ["", "v1", "v1,", "v2,{}", "v1={}", "v1,{}x", "{}", "v1, {}", "v1,\u00e9\ud800"]
)
def test_another_kind_of_signature_is_none(signature: str) -> None:
    headers = sign([SECRET], id="one", timestamp_s=NOW, body=b"body")
    given_mac = headers[SIGNATURE].removeprefix("v1,")
    assert not verified(headers | {SIGNATURE: signature.format(given_mac)}, b"body")


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1e9", " 1700000000", "\u0661", "1700000000.0"])
def test_another_kind_of_time_is_none(timestamp: str) -> None:
    headers = sign([SECRET], id="one", timestamp_s=NOW, body=b"body")
    assert not verified(headers | {TIMESTAMP: timestamp}, b"body")


@pytest.mark.parametrize(
    ("age_s", "fine"),
    [(0, True), (TOLERANCE_S, True), (-TOLERANCE_S, True), (TOLERANCE_S + 1, False), (-TOLERANCE_S - 1, False)],
)
def test_an_old_message_sent_again_is_refused(age_s: int, fine: bool) -> None:
    assert verified(sign([SECRET], id="one", timestamp_s=NOW, body=b"body"), b"body", now_s=NOW + age_s) is fine


def test_the_example_for_receivers_knows_our_messages() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "callbacks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    secret = "whsec_" + base64.b64encode(SECRET).decode()
    now = int(time.time())
    headers = sign([b"an older one of enough bytes", SECRET], id="one", timestamp_s=now, body=b"body")
    assert names["is_ours"](headers, b"body", secret)
    assert not names["is_ours"](headers, b"Body", secret)
    assert not names["is_ours"](sign([SECRET], id="one", timestamp_s=now - 301, body=b"body"), b"body", secret)


def test_a_secret_is_changed_without_a_gap() -> None:
    new = b"another one that will do it"
    both = sign([SECRET, new], id="one", timestamp_s=NOW, body=b"body")
    for secrets in ((SECRET,), (new,), (new, SECRET)):
        assert verified(both, b"body", secrets=secrets)
    assert not verified(both, b"body", secrets=(b"a third that nobody knows",))
    assert verified(sign([new], id="one", timestamp_s=NOW, body=b"body"), b"body", secrets=(SECRET, new))


def test_secrets_are_read_as_they_are_given_out() -> None:
    raw = bytes(range(SHORTEST_SECRET))
    assert secret_bytes("whsec_" + base64.b64encode(raw).decode()) == raw
    assert secret_bytes("x" * SHORTEST_SECRET) == b"x" * SHORTEST_SECRET


@pytest.mark.parametrize(
    ("text", "said"),
    [("short", "24 bytes"), ("whsec_" + "?" * 40, "base64"), ("whsec_AAAA", "24 bytes"), ("", "24 bytes")],
)
def test_a_secret_that_is_none_is_refused_without_being_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        secret_bytes(text)
    assert "?" not in str(caught.value)
    assert "AAAA" not in str(caught.value)
