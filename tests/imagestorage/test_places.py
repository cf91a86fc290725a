"""Sizes and places: what applications say, and what is made of it."""

from __future__ import annotations

import json

import pytest

from imagestorage.places import Place, read_place
from imagestorage.sizes import Size, read_size, requested_size
from lazypix.errors import BadTransform, SettingsError
from lazypix.stores.addresses import open_store

KEYS = {"access_key": "the-key", "secret_key": "the-secret"}
AMAZON = "https://s3.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("base_url", "endpoint", "region"),
    [
        (f"{AMAZON}/pictures/", AMAZON, "eu-central-1"),
        ("https://s3-eu-west-1.amazonaws.com/pictures", "https://s3-eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://s3.amazonaws.com/pictures/", "https://s3.amazonaws.com", "us-east-1"),
        ("https://s3.dualstack.eu-west-3.amazonaws.com/pictures", "https://s3.dualstack.eu-west-3.amazonaws.com", "eu-west-3"),
        ("https://pictures.s3.eu-central-1.amazonaws.com/", "", "eu-central-1"),
        ("http://127.0.0.1:8333/pictures/", "http://127.0.0.1:8333", "us-east-1"),
        ("https://minio.example/s3/pictures/", "https://minio.example/s3", "us-east-1"),
        ("https://img.example/", "", ""),
        ("https://img.example/a/b/", "", ""),
    ],
)  # fmt: skip
def test_the_server_is_read_from_the_public_url(base_url: str, endpoint: str, region: str) -> None:
    place, _ = read_place(KEYS, "pictures", base_url, "/")
    assert (place.endpoint, place.region) == (endpoint, region)
    open_store(place.store, secrets=KEYS).close()


def test_credentials_name_the_server_where_the_public_url_is_a_cdn() -> None:
    server = {"endpoint": "https://s3.example/", "region": "eu-1"}
    place, keys = read_place(KEYS | server, "pictures", "https://img.example/", "/")
    assert (place.endpoint, place.region) == ("https://s3.example", "eu-1")
    assert (keys.access_key, keys.secret_key) == ("the-key", "the-secret")


@pytest.mark.parametrize(
    ("base_url", "base_path", "url"),
    [
        (f"{AMAZON}/pictures/", "/", f"{AMAZON}/pictures/101/200x100.jpg"),
        (f"{AMAZON}/pictures", "", f"{AMAZON}/pictures/101/200x100.jpg"),
        (f"{AMAZON}/pictures/", "/img/small/", f"{AMAZON}/pictures/img/small/101/200x100.jpg"),
        (f"{AMAZON}/pictures/", "img", f"{AMAZON}/pictures/img/101/200x100.jpg"),
    ],
)
def test_parts_of_a_url_are_joined_by_one_slash(base_url: str, base_path: str, url: str) -> None:
    place, _ = read_place(KEYS, "pictures", base_url, base_path)
    assert place.url(f"{place.base_path}101/200x100.jpg") == url


def test_a_place_is_json_and_holds_no_key() -> None:
    place, keys = read_place(KEYS, "pictures", f"{AMAZON}/pictures/", "/img/")
    text = json.dumps(place.to_json())
    assert Place.from_json(json.loads(text)) == place
    assert "the-key" not in text
    assert "the-secret" not in text + repr(place) + repr(keys)


@pytest.mark.parametrize(
    "value", [{}, {"bucket": "b"}, {"bucket": 1, "base_url": "", "base_path": "", "endpoint": "", "region": ""}]
)
def test_something_else_is_no_place(value: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="accepted: an object of base_path, base_url, bucket, endpoint, region"):
        Place.from_json(value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_url": "s3.example/pictures"}, "base_url is malformed; accepted: http or https"),
        ({"base_url": "https://me:word@s3.example/pictures"}, "base_url is malformed"),
        ({"base_url": "https://s3.example/pictures?a=b"}, "base_url is malformed"),
        ({"base_url": "https://[s3/"}, "base_url is malformed"),
        ({"bucket": "a/b"}, "bucket='a/b' is not accepted"),
        ({"base_path": "/a//b"}, "base_path='/a//b' is not accepted"),
        ({"base_path": "../b"}, "base_path='../b' is not accepted"),
        ({"credentials": {"aws_access_key_id": "the-secret"}}, "accepted: access_key, secret_key, endpoint, region"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_said_when_it_is_configured(change: dict[str, str], said: str) -> None:
    given = {"credentials": KEYS, "bucket": "pictures", "base_url": f"{AMAZON}/pictures/", "base_path": "/"} | change
    with pytest.raises(SettingsError) as raised:
        read_place(**given)  # type: ignore[arg-type]
    assert said in str(raised.value)
    assert "the-secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("https://microsoft.com/?size=200x100", "200x100"),
        ("/pictures/7?a=b&size=200x", "200x"),
        ("?size=x100", "x100"),
        ((200, 100), "200x100"),
        ([200, "100"], "200x100"),
        ((200, None), "200x"),
    ],
)
def test_a_size_is_read_from_a_url_or_a_tuple(asked: Size, text: str) -> None:
    assert requested_size(asked).text == text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("https://microsoft.com/", "The requested URL has no size; needed is one, as in ?size=200x100"),
        ("https://microsoft.com/?size=", "size='' is not accepted"),
        ("https://microsoft.com/?size=abc", "size='abc' is not accepted; accepted: <width>x<height>"),
        ("https://microsoft.com/?size=200", "size='200' is not accepted"),
        ("https://microsoft.com/?size=x", "Unknown token 'x'"),
        ("https://microsoft.com/?size=0x0", "width='0' is not accepted"),
        ("https://microsoft.com/?size=200x100,fit=cover", "size='200x100,fit=cover' is not accepted"),
        ("https://microsoft.com/?size=-1x5", "size='-1x5' is not accepted"),
        ("https://microsoft.com/?size=2x2&size=3x3", "The requested URL has 2 sizes"),
        ("https://[microsoft/?size=2x2", "The requested URL is malformed"),
        ((200,), "A size has two sides, not 1"),
        ((0, 0), "width='0' is not accepted"),
        ((2.5, 3), "size='2.5x3' is not accepted"),
    ],
)
def test_what_is_no_size_is_refused_by_name(asked: Size, said: str) -> None:
    with pytest.raises(BadTransform) as raised:
        requested_size(asked)
    assert said in str(raised.value)


def test_the_size_of_an_original_is_a_text() -> None:
    assert read_size("4000x4000").text == "4000x4000"
