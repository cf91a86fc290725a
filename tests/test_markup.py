"""HTML for images: addresses, sizes to the pixel, nothing that is not escaped."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from tests.engine.pictures import jpg, oriented, quadrants

from lazypix import Focal, ImageReference, Library, Transform
from lazypix.addresses import Addresses
from lazypix.errors import BadIdent, BadRequest, BadTransform, SettingsError
from lazypix.formats import READABLE
from lazypix.gate import Gate
from lazypix.markup import Html, Tags, focused, preview_url, size_of
from lazypix.presets import Presets
from lazypix.signing.links import KeyRing
from lazypix.tokens import write_gravity

SUNRISE = "1QcSHQRnh493V4dIh4eXh1h4kJUI"
TAGS = Tags(addresses=Addresses(base_url="https://i.example"))


def reference(width: int = 1600, height: int = 1200, **more: Any) -> ImageReference:
    return ImageReference(**{"ident": "a", "width": width, "height": height, "format": "jpg", **more})


class Parsed(HTMLParser):
    """The elements of some HTML, with their attributes as a browser has them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), "an attribute is there twice"
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def attributes(html: str, element: str = "img") -> dict[str, str | None]:
    return next(found for tag, found in Parsed(html).elements if tag == element)


# --- addresses ---------------------------------------------------------------------------------------------------


def test_an_address_needs_nothing_but_the_reference() -> None:
    assert TAGS.src(reference(), "200x100,fit=cover") == "https://i.example/image/200x100,fit=cover/a.auto"
    assert TAGS.src(reference(), "200x", format="webp") == "https://i.example/image/200x/a.webp"
    assert TAGS.src(reference()) == "https://i.example/image/a.auto"


def test_the_focus_is_kept_in_sight_where_something_is_cropped() -> None:
    image = reference(focus=Focal(x=0.3, y=0.7))
    for text, kept in [
        ("200x100,fit=cover", "0.3:0.7"),
        ("200x100,fit=cover,gravity=north", "north"),
        ("200x100", "center"),
        ("full", "center"),
    ]:
        assert write_gravity(focused(image, Transform.parse(text)).gravity) == kept
    assert "gravity=0.3:0.7" in TAGS.srcset(image, "200x100,fit=cover").split(", ")[1]


@pytest.mark.parametrize(
    ("size", "transform", "expected"),
    [
        ((1600, 1200), "400x", ["400x 1x", "400x,dpr=2 2x"]),
        ((1600, 1200), "400x300,fit=cover", ["400x300,fit=cover 1x", "400x300,fit=cover,dpr=2 2x"]),
        ((700, 1200), "400x300,fit=cover", ["400x300,fit=cover 1x"]),  # 2x would be enlarged
        ((700, 500), "400x", ["400x 1x", "400x,dpr=2 2x"]),  # 700 pixels are better than 400
        ((300, 200), "400x", ["400x 1x"]),
        ((1600, 1200), "full", ["full 1x"]),
        ((9000, 9000), "400x,dpr=5", ["400x,dpr=5 1x"]),
    ],
)
def test_candidates_by_density_are_never_enlarged(size: tuple[int, int], transform: str, expected: list[str]) -> None:
    assert _short(TAGS.srcset(reference(*size), transform)) == expected


@pytest.mark.parametrize(
    ("size", "transform", "widths", "expected"),
    [
        ((1600, 1200), "full", (400, 800), ["400x 400w", "800x 800w"]),
        ((600, 300), "full", (400, 800, 1600), ["400x 400w", "600x 600w"]),
        ((1600, 1200), "300x200,fit=cover", (300, 600), ["300x200,fit=cover 300w", "600x400,fit=cover 600w"]),
        ((600, 300), "300x300,fit=cover", (200, 300, 400), ["200x200,fit=cover 200w", "300x300,fit=cover 300w"]),
        ((600, 300), "300x300,fit=cover", (900,), ["300x300,fit=cover 300w"]),
        ((600, 300), "full,rotate=90", (900,), ["300x,rotate=90 300w"]),
        ((600, 300), "crop=0:0:100:100", (50, 900), ["50x,crop=0:0:100:100 50w", "100x,crop=0:0:100:100 100w"]),
    ],
)  # fmt: skip
def test_candidates_by_width_are_never_wider_than_the_original(
    size: tuple[int, int], transform: str, widths: tuple[int, ...], expected: list[str]
) -> None:
    assert _short(TAGS.srcset(reference(*size), transform, widths=widths)) == expected


def _short(srcset: str) -> list[str]:
    """Return each candidate as the transform's text and its descriptor."""
    found = [re.fullmatch(r"https://i\.example/image/(?:(.+)/)?a\.auto (\S+)", part) for part in srcset.split(", ")]
    assert all(found), srcset
    return [f"{match[1] or 'full'} {match[2]}" for match in found if match]


def test_widths_need_a_width_to_start_from() -> None:
    with pytest.raises(BadRequest, match="x200 has a height only"):
        TAGS.srcset(reference(), "x200", widths=(100,))


def test_only_presets_are_offered_where_nothing_else_is_given_out() -> None:
    presets = Presets.read({"thumb": "200x100,fit=cover", "large": "400x200,fit=cover", "photo": "800x,format=jpg"})
    tags = Tags(addresses=Addresses(gate=Gate(mode="presets", presets=presets)))
    image = reference(focus=Focal(x=0.3, y=0.7))
    assert tags.src(image, "@thumb") == "/image/200x100,fit=cover/a.auto"
    assert tags.srcset(image, "@thumb") == "/image/200x100,fit=cover/a.auto 1x"
    assert tags.srcset(image, "@thumb", widths=(200, 300, 400)) == (
        "/image/200x100,fit=cover/a.auto 200w, /image/400x200,fit=cover/a.auto 400w"
    )
    assert "<source" not in tags.picture(image, "@photo", alt="")
    with pytest.raises(SettingsError, match="url_keys"):
        tags.img(image, "300x", alt="")


def test_links_are_signed_and_expire_where_it_is_wanted() -> None:
    ring = KeyRing.of(["a:" + "5" * 64])
    signed = Tags(addresses=Addresses(gate=Gate(mode="signed", ring=ring)))
    for part in signed.srcset(reference(), "400x").split(", "):
        path, _, query = part.split(" ")[0].partition("?")
        assert ring.verify(path, query, subject="/image/a") is not None
    expiring = Tags(addresses=Addresses(gate=Gate(ring=ring)), expires_s=60)
    assert expiring.src(reference(), "400x") != TAGS.src(reference(), "400x")


# --- elements ----------------------------------------------------------------------------------------------------


def test_an_image_keeps_its_place_and_loads_late() -> None:
    html = TAGS.img(reference(thumbhash=SUNRISE), "400x", alt="A rose", class_="wide", data_id=3, hidden=True)
    assert html == (
        '<img src="https://i.example/image/400x/a.auto" srcset="https://i.example/image/400x/a.auto 1x, '
        'https://i.example/image/400x,dpr=2/a.auto 2x" width="400" height="300" alt="A rose" loading="lazy" '
        'decoding="async" class="wide" data-id="3" hidden style="background:#555157">'
    )


def test_what_matters_most_is_not_loaded_late() -> None:
    assert "loading" not in attributes(TAGS.img(reference(), "400x", alt="", fetchpriority="high"))
    assert attributes(TAGS.img(reference(), "400x", alt="", loading="eager", decoding=None)).get("decoding") is None


def test_a_picture_offers_the_best_formats_first() -> None:
    html = TAGS.picture(reference(), "400x", alt="A rose", widths=(400, 800), sizes="50vw")
    elements = Parsed(html).elements
    assert [tag for tag, _ in elements] == ["picture", "source", "source", "img"]
    assert [found["type"] for tag, found in elements if tag == "source"] == ["image/avif", "image/webp"]
    assert {found["sizes"] for tag, found in elements if tag != "picture"} == {"50vw"}
    assert attributes(html)["src"] == "https://i.example/image/400x/a.jpg"
    assert (attributes(html)["width"], attributes(html)["height"]) == ("400", "300")


@pytest.mark.parametrize(
    ("format", "sources", "last"),
    [("jpg", 2, "jpg"), ("png", 2, "png"), ("tiff", 2, "jpg"), ("gif", 1, "gif"), ("webp", 1, "jpg")],
)
def test_what_may_be_animated_is_not_offered_still(format: str, sources: int, last: str) -> None:
    html = TAGS.picture(reference(format=format), "400x", alt="")
    assert html.count("<source") == sources
    assert (attributes(html)["src"] or "").endswith(f".{last}")


def test_a_preview_stands_in_while_the_image_loads() -> None:
    style = attributes(TAGS.img(reference(thumbhash=SUNRISE), "400x", alt="", placeholder="preview", style="x:y"))
    assert style["style"] == f"background:url({preview_url(SUNRISE)}) 0 0/100% 100%;x:y"
    assert "style" not in attributes(TAGS.img(reference(thumbhash=SUNRISE), "400x", alt="", placeholder=None))
    assert "style" not in attributes(TAGS.img(reference(thumbhash="!"), "400x", alt=""))


def test_templates_take_it_as_html() -> None:
    html = TAGS.img(reference(), "400x", alt="")
    assert isinstance(html, Html)
    assert html.__html__() == html


def test_what_is_impossible_is_said() -> None:
    with pytest.raises(BadTransform, match="Unknown token"):
        TAGS.img(reference(), "nonsense", alt="")
    with pytest.raises(BadRequest, match="width follows from the transform"):
        TAGS.img(reference(), "400x", alt="", width=3)
    with pytest.raises(BadRequest, match="is no attribute's name"):
        TAGS.img(reference(), "400x", alt="", **cast(Any, {"x onload": "y"}))


@given(alt=st.text(), value=st.text(), sizes=st.text(), name=st.from_regex(r"[a-z]{3,8}_?", fullmatch=True))
def test_whatever_is_given_stays_inside_of_its_attribute(alt: str, value: str, sizes: str, name: str) -> None:
    given_attributes: Any = {name: value, "sizes": sizes}
    written = name.rstrip("_")
    if written in ("src", "srcset", "width", "height", "style", "alt", "sizes", "loading"):
        return
    html = TAGS.picture(reference(), "400x", alt=alt, widths=(400,), **given_attributes)
    parsed = Parsed(html)
    assert [tag for tag, _ in parsed.elements] == ["picture", "source", "source", "img"]
    assert parsed.text == ""
    found = attributes(html)
    assert (found["alt"], found[written], found["sizes"]) == (alt, value, sizes)
    assert not re.search("[<>\"']", re.sub(r'<[a-z]+|[a-z]+="|"|</picture>|>', "", html))


# --- sizes, against what is really made ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with Library.open(tmp_path_factory.mktemp("markup")) as opened:
        opened.add(jpg(quadrants(301, 203)), ident="wide")
        opened.add(oriented(quadrants(203, 301), 6), ident="turned")
        yield opened


@pytest.mark.parametrize("ident", ["wide", "turned"])
@pytest.mark.parametrize(
    "transform",
    ["full", "100x", "x77", "100x100", "999x999", "33x50,fit=cover", "100x50,fit=cover,gravity=attention", "50x40,fit=fill",
     "101x,fit=outside", "400x400,fit=outside", "60x40,fit=top", "100x,rotate=90", "90x,dpr=1.5", "full,crop=0.1:0.1:0.33:0.7"],
)  # fmt: skip
def test_width_and_height_are_those_of_the_pixels(library: Library, ident: str, transform: str) -> None:
    image = library.get(ident).reference()
    made = Pillow.open(io.BytesIO(library.variant(ident, transform, format="png").body))
    assert size_of(image, Transform.parse(transform)) == made.size
    found = attributes(TAGS.img(image, transform, alt=""))
    assert (found["width"], found["height"]) == (str(made.width), str(made.height))


# --- the reference -------------------------------------------------------------------------------------------------

fractions = st.floats(0, 1).map(lambda value: round(value, 4))
references = st.builds(
    ImageReference,
    ident=st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True), width=st.integers(1, 10**6), height=st.integers(1, 10**6),
    format=st.sampled_from(READABLE), thumbhash=st.none() | st.just(SUNRISE),
    focus=st.none() | st.builds(Focal, x=fractions, y=fractions),
)  # fmt: skip


@given(references)
def test_a_reference_goes_through_json_and_back(image: ImageReference) -> None:
    assert ImageReference.from_json(json.loads(json.dumps(image.to_json()))) == image


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0}, {"height": -5}, {"width": 10**30}, {"width": float("inf")}, {"width": float("nan")}, {"format": '"><b>'},
        {"format": None}, {"thumbhash": 5}, {"ident": "../a"}, {"focus": 5}, {"focus": []},
    ],
)  # fmt: skip
def test_json_that_is_no_reference_is_refused_when_it_is_read(wrong: dict[str, Any]) -> None:
    with pytest.raises((BadRequest, BadIdent)):
        ImageReference.from_json({"ident": "a", "width": 30, "height": 20, "format": "jpg"} | wrong)


def test_a_picture_s_unknown_format_is_named() -> None:
    with pytest.raises(BadRequest, match="format='jpeg2000' is not accepted; accepted: jpg"):
        TAGS.picture(reference(), "10x", alt="", formats=["jpeg2000"])


def test_a_text_that_is_missing_in_a_template_leaves_the_attribute_there() -> None:
    assert 'alt=""' in TAGS.img(reference(), "10x", alt=cast(str, None))
