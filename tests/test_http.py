"""HTTP as plain values, row by row as RFC 9110 has it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lazypix.errors import Busy, LazypixError, StoreFailed, Unauthorized, UnknownImage
from lazypix.http import (
    Answer,
    FileBody,
    Representation,
    Request,
    content_disposition,
    envelope,
    error_answer,
    http_date,
    json_answer,
    precondition,
    ranked_formats,
    respond,
)

ETAG = '"abc"'
MODIFIED = datetime(2024, 5, 6, 7, 8, 9, 250_000, tzinfo=UTC)  # with a fraction, which HTTP cannot say
SAME = "Mon, 06 May 2024 07:08:09 GMT"
BEFORE = "Mon, 06 May 2024 07:08:08 GMT"
AFTER = "Mon, 06 May 2024 07:08:10 GMT"
BODY = bytes(range(100))
HEADERS = ((b"content-type", b"image/png"), (b"cache-control", b"public"), (b"vary", b"accept"))
WHOLE = Representation(ident="x", body=BODY, etag=ETAG, modified=MODIFIED, headers=HEADERS)


def _request(method: str = "GET", **headers: Any) -> Request:
    return Request(method=method, path="/image/x.png", **headers)


def _headers(answer: Answer) -> dict[str, str]:
    assert len({name for name, _ in answer.headers}) == len(answer.headers), "a header is there twice"
    return {name.decode(): value.decode("latin-1") for name, value in answer.headers}


# --- conditions ------------------------------------------------------------------------------------------------

CONDITIONS: list[tuple[dict[str, str], int]] = [
    ({}, 200),
    # If-None-Match: weak comparison
    ({"if_none_match": '"abc"'}, 304),
    ({"if_none_match": 'W/"abc"'}, 304),
    ({"if_none_match": '"no", "abc"'}, 304),
    ({"if_none_match": '"no",W/"abc" , "x"'}, 304),
    ({"if_none_match": "*"}, 304),
    ({"if_none_match": " * "}, 304),
    ({"if_none_match": '"no"'}, 200),
    ({"if_none_match": "abc"}, 200),  # not quoted: no entity tag
    ({"if_none_match": '"ABC"'}, 200),
    ({"if_none_match": ""}, 200),
    # If-Modified-Since: only without If-None-Match
    ({"if_modified_since": SAME}, 304),
    ({"if_modified_since": AFTER}, 304),
    ({"if_modified_since": BEFORE}, 200),
    ({"if_modified_since": "yesterday"}, 200),
    ({"if_modified_since": ""}, 200),
    ({"if_none_match": '"no"', "if_modified_since": AFTER}, 200),
    ({"if_none_match": '"abc"', "if_modified_since": BEFORE}, 304),
    ({"if_none_match": "", "if_modified_since": AFTER}, 200),
    # If-Match: strong comparison
    ({"if_match": '"abc"'}, 200),
    ({"if_match": '"no", "abc"'}, 200),
    ({"if_match": "*"}, 200),
    ({"if_match": '"no"'}, 412),
    ({"if_match": 'W/"abc"'}, 412),
    # If-Unmodified-Since: only without If-Match
    ({"if_unmodified_since": SAME}, 200),
    ({"if_unmodified_since": AFTER}, 200),
    ({"if_unmodified_since": BEFORE}, 412),
    ({"if_unmodified_since": "yesterday"}, 200),
    ({"if_match": '"abc"', "if_unmodified_since": BEFORE}, 200),
    ({"if_match": '"no"', "if_unmodified_since": AFTER}, 412),
    # the order of 13.2.2: If-Match before If-None-Match
    ({"if_match": '"no"', "if_none_match": '"abc"'}, 412),
    ({"if_match": '"abc"', "if_none_match": '"abc"'}, 304),
    ({"if_unmodified_since": BEFORE, "if_none_match": '"abc"'}, 412),
    ({"if_unmodified_since": AFTER, "if_modified_since": AFTER}, 304),
    # the other date formats of 5.6.7 are to be understood too
    ({"if_modified_since": "Monday, 06-May-24 07:08:09 GMT"}, 304),
    ({"if_modified_since": "Mon May  6 07:08:09 2024"}, 304),
    # a condition is decided before the range
    ({"if_none_match": '"abc"', "range": "bytes=0-1"}, 304),
    ({"if_match": '"no"', "range": "bytes=0-1"}, 412),
    ({"if_none_match": '"no"', "range": "bytes=0-1"}, 206),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("headers", "status"), CONDITIONS)
def test_conditions_as_rfc_9110_orders_them(headers: dict[str, str], status: int, method: str) -> None:
    expected = 200 if (status, method) == (206, "HEAD") else status  # a range is for GET alone
    assert respond(WHOLE, _request(method, **headers)).status == expected


def test_a_304_repeats_what_caches_need_and_has_no_body() -> None:
    answer = respond(WHOLE, _request(if_none_match=ETAG))
    assert answer.body == b""
    assert _headers(answer) == {"etag": ETAG, "last-modified": SAME, "cache-control": "public", "vary": "accept"}


def test_a_412_has_no_body_and_is_not_kept() -> None:
    answer = respond(WHOLE, _request(if_match='"no"'))
    assert answer.body == b""
    assert _headers(answer)["content-length"] == "0"
    assert _headers(answer)["cache-control"] == "no-store"


def test_without_a_date_only_the_entity_tag_decides() -> None:
    assert precondition(_request(if_none_match=ETAG), ETAG, None) == 304
    assert precondition(_request(if_modified_since=AFTER), ETAG, None) is None
    assert precondition(_request(if_unmodified_since=BEFORE), ETAG, None) is None


hostile = st.none() | st.text(max_size=40) | st.from_regex(r"(bytes=)?[0-9,\- ]{0,20}")
dates = st.from_regex(
    r"[A-Z][a-z]{2}, [0-9]{1,3} (Jan|Feb|Xyz) [0-9]{1,6} [0-9]{2}:[0-9]{2}:[0-9]{2} [+\-A-Z0-9]{1,9}"
)


@given(hostile, hostile, hostile | dates, hostile | dates, hostile, hostile | dates)
@example(None, None, "Mon, 01 Jan 2024 00:00:00 +99999999999999999", None, None, None)
@example(None, None, None, "Mon, 01 Jan 2024 00:00:00 -9999", None, None)
@example(None, None, "Mon, 01 Jan 0001 00:00:00 +2300", None, None, None)
@example(None, None, None, None, "bytes=" + "9" * 5000 + "-", None)
@example(None, None, None, None, "bytes=-" + "9" * 5000, None)
def test_no_header_brings_the_rules_down(
    match: str | None,
    none_match: str | None,
    since: str | None,
    unmodified: str | None,
    wanted: str | None,
    if_range: str | None,
) -> None:
    request = _request(
        if_match=match, if_none_match=none_match, if_modified_since=since, if_unmodified_since=unmodified,
        range=wanted, if_range=if_range,
    )  # fmt: skip
    answer = respond(WHOLE, request)
    assert answer.status in (200, 206, 304, 412, 416)
    if answer.status == 206:
        assert isinstance(answer.body, bytes)
        assert answer.body
        assert answer.body in BODY


# --- ranges ----------------------------------------------------------------------------------------------------

RANGES: list[tuple[str, int, int, int]] = [
    # range, status, first, behind the last
    ("bytes=0-9", 206, 0, 10),
    ("bytes=0-0", 206, 0, 1),
    ("bytes=10-19", 206, 10, 20),
    ("bytes=99-99", 206, 99, 100),
    ("bytes=90-", 206, 90, 100),
    ("bytes=0-", 206, 0, 100),
    ("bytes=90-1000", 206, 90, 100),
    ("bytes=-10", 206, 90, 100),
    ("bytes=-1", 206, 99, 100),
    ("bytes=-1000", 206, 0, 100),
    ("Bytes=0-9", 206, 0, 10),  # range units are not case-sensitive (14.1)
    (" bytes=0-9 ", 206, 0, 10),
    # nothing of it is there
    ("bytes=100-", 416, 0, 0),
    ("bytes=100-200", 416, 0, 0),
    ("bytes=-0", 416, 0, 0),
    # invalid or of another unit: ignored
    ("bytes=9-0", 200, 0, 100),
    ("bytes=", 200, 0, 100),
    ("bytes=-", 200, 0, 100),
    ("bytes=a-b", 200, 0, 100),
    ("bytes=0-9-", 200, 0, 100),
    ("bytes=0x1-9", 200, 0, 100),
    ("bytes=+1-9", 200, 0, 100),
    ("bytes=٠-٩", 200, 0, 100),
    ("bytes 0-9", 200, 0, 100),
    ("items=0-9", 200, 0, 100),
    ("", 200, 0, 100),
    # several at once: the whole
    ("bytes=0-1,5-6", 200, 0, 100),
    ("bytes=0-1, 200-300", 200, 0, 100),
]


@pytest.mark.parametrize(("wanted", "status", "first", "behind"), RANGES)
def test_ranges(wanted: str, status: int, first: int, behind: int) -> None:
    answer = respond(WHOLE, _request(range=wanted))
    headers = _headers(answer)
    assert answer.status == status
    assert answer.body == BODY[first:behind]
    assert headers["content-length"] == str(behind - first)
    expected = {206: f"bytes {first}-{behind - 1}/100", 416: "bytes */100", 200: None}[status]
    assert headers.get("content-range") == expected
    if status != 416:
        assert headers["accept-ranges"] == "bytes"
        assert headers["etag"] == ETAG
        assert headers["last-modified"] == SAME
        assert headers["content-type"] == "image/png"


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=0-9", "bytes=-5"])
def test_an_empty_body_has_no_ranges(wanted: str) -> None:
    empty = Representation(ident="x", body=b"", etag=ETAG, modified=MODIFIED, headers=())
    assert respond(empty, _request(range=wanted)).status == 416


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        (ETAG, 206),
        (f" {ETAG} ", 206),
        ('"no"', 200),
        (f"W/{ETAG}", 200),  # a weak tag never matches strongly
        (SAME, 206),
        (BEFORE, 200),
        (AFTER, 200),
        ("yesterday", 200),
        ("", 200),
        ("*", 200),
    ],
)
def test_if_range_guards_the_range(if_range: str, status: int) -> None:
    assert respond(WHOLE, _request(range="bytes=0-1", if_range=if_range)).status == status
    assert respond(WHOLE, _request(range="bytes=200-", if_range=if_range)).status == {206: 416}.get(status, status)


def test_if_range_without_a_range_says_nothing() -> None:
    assert respond(WHOLE, _request(if_range='"no"')).status == 200


def test_head_is_get_without_the_body() -> None:
    get, head = respond(WHOLE, _request()), respond(WHOLE, _request("HEAD"))
    assert (get.status, get.body) == (200, BODY)
    assert (head.status, head.body) == (200, b"")
    assert head.headers == get.headers
    assert _headers(head)["content-length"] == "100"


def test_head_knows_no_ranges() -> None:
    answer = respond(WHOLE, _request("HEAD", range="bytes=0-9"))
    assert (answer.status, answer.body, _headers(answer)["content-length"]) == (200, b"", "100")


def test_a_part_of_a_file_is_a_part_of_the_file() -> None:
    body = FileBody(path=Path("/x"), start=0, length=100)
    of_file = Representation(ident="x", body=body, etag=ETAG, modified=MODIFIED, headers=())
    assert respond(of_file, _request(range="bytes=10-19")).body == FileBody(path=Path("/x"), start=10, length=10)
    assert respond(of_file, _request()).body == body
    assert respond(of_file, _request("HEAD")).body == b""


@pytest.mark.parametrize(
    ("headers", "plain"),
    [
        ({}, True),
        ({"accept": "image/webp"}, True),
        ({"if_range": ETAG}, True),  # without a range it says nothing
        ({"range": "bytes=0-"}, False),
        ({"if_none_match": ETAG}, False),
        ({"if_modified_since": SAME}, False),
        ({"if_match": ETAG}, False),
        ({"if_unmodified_since": SAME}, False),
    ],
)
def test_a_plain_request_is_one_that_can_only_be_answered_with_the_whole(
    headers: dict[str, str], plain: bool
) -> None:
    assert _request(**headers).is_plain == plain
    assert not _request("HEAD", **headers).is_plain


def test_dates_are_written_as_http_does() -> None:
    assert http_date(MODIFIED) == SAME.encode()


# --- Accept ----------------------------------------------------------------------------------------------------

ALL = ("avif", "webp", "jpg", "png", "gif")
OLD = ("jpg", "png", "gif")


@pytest.mark.parametrize(
    ("accept", "ranked"),
    [
        # what browsers send for <img>
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", ALL),  # Chrome
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
         ("avif", "webp", "png", "jpg", "gif")),  # Firefox 128
        ("image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,"
         "image/*;q=0.8,*/*;q=0.5",
         ("avif", "webp", "png", "jpg", "gif")),  # Safari 17
        ("image/avif,image/webp,*/*", ALL),  # Firefox 92 to 127
        ("image/webp,*/*", ("webp", *OLD)),  # Firefox 65
        ("image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5", ("png", "jpg", "gif")),  # Safari 13
        # what browsers send for an address typed in
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
         "application/signed-exchange;v=b3;q=0.7", ALL),  # Chrome
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", OLD),  # Safari
        # what tools send: no opting in to formats they may not know
        ("*/*", OLD),  # curl
        (None, OLD),
        ("", OLD),
        ("  ", OLD),
        ("image/*", OLD),
        # q-values
        ("image/webp;q=0.5,image/avif;q=0.4", ("webp", "avif")),
        ("image/webp;q=0,image/*", OLD),
        ("image/jpeg;q=0,*/*", ("png", "gif")),
        ("image/*;q=0,*/*", ()),
        ("image/avif;q=0.1,image/jpeg;q=0.9", ("jpg", "avif")),
        ("image/png;q=0.9,image/*;q=0.1", ("png", "jpg", "gif")),
        ("image/jpeg;q=high", ()),
        ("image/jpeg;q=nan", ()),
        ("image/jpeg;q=-1", ()),
        ("image/jpeg;q=7,image/png", ("jpg", "png")),
        # spelling
        ("IMAGE/WEBP", ("webp",)),
        (" image/webp ; q=1.0 , image/png ; Q=0.5 ", ("webp", "png")),
        ("image/webp;level=1;q=0.5,image/png", ("png", "webp")),
        # nothing of ours
        ("text/html", ()),
        ("application/json", ()),
        (",,;q=1,", ()),
    ],
)  # fmt: skip
def test_accept(accept: str | None, ranked: tuple[str, ...]) -> None:
    assert ranked_formats(accept) == ranked


@given(st.text(max_size=60) | st.from_regex(r"(image/(webp|\*|png)(;q=[0-9.]{0,5})?,?){0,4}"))
def test_any_accept_gives_known_formats_once(accept: str) -> None:
    ranked = ranked_formats(accept)
    assert len(set(ranked)) == len(ranked)
    assert set(ranked) <= set(ALL)


# --- headers and envelopes -------------------------------------------------------------------------------------


def test_a_plain_name_is_sent_plainly() -> None:
    assert content_disposition("cat 1_a-B.jpg") == b'inline; filename="cat 1_a-B.jpg"'


@pytest.mark.parametrize(
    "name",
    [
        'a".jpg', "a\\.jpg", 'a"; filename="evil.exe', "a\r\nSet-Cookie: x=1", "a\nb.jpg", "a\0b.jpg", "Käse €.jpg",
        "猫.png", "😀.gif", "../../etc/passwd", "C:\\x.jpg", "%41.jpg", "a;b.jpg", "a'b.jpg", "\u202egpj.exe", "",
        "\udcff.jpg",
    ],
)  # fmt: skip
def test_a_hostile_name_cannot_leave_its_header(name: str) -> None:
    _check_disposition(name)


@given(st.text(max_size=30))
def test_any_name_makes_one_safe_header(name: str) -> None:
    _check_disposition(name)


def _check_disposition(name: str) -> None:
    header = content_disposition(name)
    text = header.decode("ascii")
    assert text.isprintable()
    assert text.startswith('inline; filename="')
    plain, _, extended = text.removeprefix('inline; filename="').partition('"')
    assert not set(plain) & set('"\\/%;')
    assert not extended or extended.startswith("; filename*=UTF-8''")
    assert set(extended.removeprefix("; filename*=UTF-8''")) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%"
    )
    if name.isprintable() and "/" not in name:  # a client reads what was meant
        extended = extended.removeprefix("; filename*=UTF-8''")
        assert (unquote(extended, errors="strict") or plain) == name


def test_the_envelope_is_imageservers() -> None:
    answer = envelope(200, {"ident": "x"})
    assert json.loads(_bytes(answer)) == {"status": "ok", "content": {"ident": "x"}}
    assert _headers(answer)["content-type"] == "application/json"
    assert _headers(answer)["content-length"] == str(len(_bytes(answer)))
    assert _headers(answer)["cache-control"] == "no-store"
    assert json.loads(_bytes(envelope(400, "no"))) == {"status": "error", "content": "no"}


def test_a_cache_rule_that_is_given_is_the_only_one() -> None:
    answer = json_answer(200, b"{}", (b"cache-control", b"public"))
    assert _headers(answer)["cache-control"] == "public"


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (UnknownImage("There is no image x"), 404, {"cache-control": "public, max-age=10"}),
        (Busy("full"), 503, {"retry-after": "1", "cache-control": "no-store"}),
        (StoreFailed("down"), 503, {"retry-after": "5"}),
        (Unauthorized("no key"), 401, {"www-authenticate": 'Bearer realm="lazypix"'}),
        (LazypixError("odd"), 500, {"lazypix-error": "internal"}),
    ],
)
def test_an_error_is_told_in_the_envelope(error: LazypixError, status: int, headers: dict[str, str]) -> None:
    answer = error_answer(error)
    assert answer.status == status
    assert json.loads(_bytes(answer)) == {"status": "error", "content": str(error)}
    assert headers.items() <= _headers(answer).items()
    assert _headers(answer)["lazypix-error"] == error.code
    assert _headers(answer)["x-content-type-options"] == "nosniff"


def _bytes(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def test_the_table_of_conditions_holds_every_pair_of_headers_once() -> None:
    def row(headers: dict[str, Any]) -> str:
        return json.dumps(headers, sort_keys=True)

    assert len({row(headers) for headers, _ in CONDITIONS}) == len(CONDITIONS)
