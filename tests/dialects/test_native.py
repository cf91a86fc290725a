"""lazypix' own addresses: `<canonical text>/<ident>.<ext>` and `<ident>.<ext>?<options>`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_keys import idents
from tests.test_transform import transforms

from lazypix.dialects import Target, Wanted
from lazypix.dialects.native import MOUNT, Native, address
from lazypix.dialects.ordered import parse
from lazypix.errors import BadIdent, BadRequest, BadTransform, LazypixError, NotFound
from lazypix.transform import Transform


def _parse(address: str) -> Wanted:
    path, _, query = address.partition("?")
    return parse(Target.split(MOUNT + path, query, MOUNT))


def _wanted(text: str, ident: str = "cat", source: str | None = None) -> Wanted:
    return Wanted(ident=ident, transform=Transform.parse(text), source_format=source)


INVERSES = [
    ("cat.auto", _wanted("full")),
    ("cat.jpg", _wanted("format=jpg")),
    ("cat.tiff", _wanted("full", source="tiff")),
    ("200x100/cat.auto", _wanted("200x100")),
    ("200x100/cat.webp", _wanted("200x100,format=webp")),
    ("200x/cat.png", _wanted("200x,format=png")),
    ("x100/cat.gif", _wanted("x100,format=gif")),
    ("200x100,fit=cover,gravity=0.3:0.7,quality=70/cat.avif", _wanted(
        "200x100,fit=cover,gravity=0.3:0.7,quality=70,format=avif")),
    ("crop=0.1:0.1:0.5:0.5,rotate=90/cat.jpg", _wanted("crop=0.1:0.1:0.5:0.5,rotate=90,format=jpg")),
    ("lossless=true/cat.webp", _wanted("lossless=true,format=webp")),
]  # fmt: skip

SAME = [
    ("cat", "cat.auto"),
    ("cat.AUTO", "cat.auto"),
    ("cat.jpeg", "cat.jpg"),
    ("cat.JPG", "cat.jpg"),
    ("cat.tif", "cat.tiff"),
    ("full/cat.jpg", "cat.jpg"),
    ("200x100/cat", "200x100/cat.auto"),
    ("200x100,format=webp/cat", "200x100/cat.webp"),
    ("200x100,format=webp/cat.webp", "200x100/cat.webp"),
    ("200x100%2Cfit%3Dcover/cat.jpg", "200x100,fit=cover/cat.jpg"),
    ("%63at.jpg", "cat.jpg"),
    ("cat.jpg?rotate=90", "rotate=90/cat.jpg"),
    ("cat?format=webp", "cat.webp"),
    ("cat.jpg?width=200&height=100&fit=cover", "200x100,fit=cover/cat.jpg"),
    ("cat.jpg?fit=inside&width=200", "200x/cat.jpg"),
    ("cat.jpg?width=200&fit=cover&height=100&gravity=left", "200x100,fit=cover,gravity=west/cat.jpg"),
    ("cat.jpg?crop=0.1%3A0.1%3A0.5%3A0.5", "crop=0.1:0.1:0.5:0.5/cat.jpg"),
    ("cat.jpg?background=%23fff", "background=ffffff/cat.jpg"),
    ("cat.jpg?", "cat.jpg"),
]

BAD: list[tuple[str, type[LazypixError], str]] = [
    ("", BadIdent, "''"),
    ("/", BadIdent, "''"),
    ("200x100/", BadIdent, "''"),
    ("200x100/.jpg", BadIdent, "''"),
    ("..", BadIdent, "'.'"),
    ("../cat.jpg", BadTransform, "'..'"),
    ("200x100/..", BadIdent, "'.'"),
    ("200x100/..%2Fcat.jpg", BadIdent, "'../cat'"),
    ("200x100/%2e%2e%2f%2e%2e%2fetc%2fpasswd.jpg", BadIdent, "'../../etc/passwd'"),
    ("%2Fetc%2Fpasswd", BadIdent, "'/etc/passwd'"),
    ("cat%00.jpg", BadIdent, r"cat\\x00"),
    ("cat.tar.jpg", BadIdent, "'cat.tar'"),
    ("c%C3%A4t.jpg", BadIdent, "accepted: 1 to 128"),
    ("x" * 129 + ".jpg", BadIdent, "1 to 128"),
    ("cat%ff.jpg", BadRequest, "percent-encoded UTF-8"),
    ("cat.jpg?width=%ff", BadRequest, "percent-encoded UTF-8"),
    ("cat.jpg?" + "&".join(["rotate=0"] * 51), BadRequest, "too many options"),
    ("cat.exe", BadRequest, r"\.exe; accepted: jpg, png, gif, webp, avif, auto"),
    ("cat.svg", BadRequest, r"\.svg; accepted"),
    ("cat.", BadRequest, r"Unknown extension \."),
    ("cat." + "x" * 500, BadRequest, r"\.x{16}; accepted"),
    ("200x100/cat.tiff", BadRequest, "cannot be made as tiff"),
    ("200x100,format=png/cat.jpg", BadRequest, r"format=png contradicts the extension \.jpg"),
    ("200x100,quality=70/cat.png", BadTransform, "quality=70"),
    ("cat?x/cat.jpg", BadTransform, "'x/cat.jpg'"),
    ("200x100/cat.jpg?rotate=90", BadRequest, "'rotate'"),
    ("200y100/cat.jpg", BadTransform, "'200y100'"),
    ("cat.jpg?w=100", BadTransform, "'w'; accepted: width, height, fit"),
    ("cat.jpg?width=100&fit=cover&width=100", BadTransform, "'width' is given twice"),
    ("cat.jpg?fit=cover", BadTransform, "needs a size"),
    ("a/b/c/cat.jpg", NotFound, "accepted: <size>/<ident>"),
    ("1/2/3/cat.jpg", NotFound, "accepted: <size>/<ident>"),
]


@pytest.mark.parametrize(("address", "wanted"), INVERSES)
def test_parse_and_format_are_inverses(address: str, wanted: Wanted) -> None:
    assert _parse(address) == wanted
    assert Native().format(wanted) == address


@pytest.mark.parametrize(("address", "same"), SAME)
def test_other_spellings_mean_the_same(address: str, same: str) -> None:
    assert _parse(address) == _parse(same)
    assert Native().format(_parse(address)) == same


@pytest.mark.parametrize(("address", "error", "message"), BAD)
def test_what_is_wrong_is_refused_by_name(address: str, error: type[LazypixError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        _parse(address)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 400


@given(idents, transforms())
def test_every_address_is_read_as_it_was_meant(ident: str, transform: Transform) -> None:
    wanted = Wanted(ident=ident, transform=transform)
    assert _parse(Native().format(wanted)) == wanted
    assert address(ident, transform) == MOUNT + Native().format(wanted)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_address_is_read_or_refused(path: str, query: str) -> None:
    try:
        wanted = parse(Target.split(MOUNT + path, query, MOUNT))
    except (BadRequest, NotFound):
        return
    assert _parse(Native().format(wanted)) == wanted


def test_what_is_not_below_the_mount_is_not_found() -> None:
    with pytest.raises(NotFound, match="images are below /image/"):
        Target.split("/img/cat.jpg", "", MOUNT)


def test_an_address_is_made_of_texts_too() -> None:
    assert address("cat") == "/image/cat.auto"
    assert address("cat", "200x100") == "/image/200x100/cat.auto"
    assert address("cat", "200x100", "jpeg") == "/image/200x100/cat.jpg"
    with pytest.raises(BadIdent):
        address("../cat")
    with pytest.raises(BadTransform):
        address("cat", "200")
