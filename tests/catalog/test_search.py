"""Searching: every order and filter against a plain model; pages without gaps or doubles, whatever happens between."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import psycopg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lazypix.catalog import Catalog, Image, Search
from lazypix.catalog.search import Order
from lazypix.errors import BadRequest, LazypixError, UnknownImage
from lazypix.filenames import base_name
from lazypix.plan import Probe

NOW = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
ALPHABET = "ABZabz019_-"
NAMES = [
    None, "IMG_0001.JPG", "img_0001.jpg", "IMG-0002.jpg", "imgx0003.jpg", "100%.png", "100_.png", "100\\.png", "1000.png",
    "Straße.jpg", "STRASSE 2.jpg", "Käse.jpg", unicodedata.normalize("NFD", "käse 2.jpg"), "ΣΊΣΥΦΟΣ.png", "σίσυφος.png",
    "猫.gif", "猫猫.gif", "\U0001f408.webp", "a\ud7ff.png", "a\ue000.png", "a\U0010ffff.png", "a.png", "'; --.png", " .png",
    "lång" * 60 + "1.jpg", "LÅNG" * 60 + "2.jpg",
]  # fmt: skip
PREFIXES = [
    "", "img", "IMG_", "img_0", "img-", "100", "100%", "100_", "100\\", "strass", "STRAß", "kä", "KÄS", "ka", "σίσ", "猫",
    "\U0001f408", "a", "a\ud7ff", "a\U0010ffff", "\U0010ffff", "'", " ", "no such", "lång" * 50, "Lång" * 70,
]  # fmt: skip
PAIRS: list[dict[str, Any]] = [
    {"album": "summer"}, {"album": "Summer"}, {"album": "su%"}, {"n": 1}, {"n": "1"}, {"n": 2.5}, {"n": -3}, {"public": True},
    {"public": "true"}, {"public": False}, {"public": 1}, {"a=b": "c"}, {"a": "b=c"}, {"a%3Db": "c"}, {"": ""}, {"猫": "Kätze"},
    {"long": "x" * 1000}, {"long": "x" * 999 + "y"}, {"zero": "a\0b"}, {"zero": "ab"}, {"half": "\ud800"},
]  # fmt: skip
UNSEARCHED: list[dict[str, Any]] = [{}, {"album": None}, {"album": ["summer"]}, {"album": {"n": 1}}]
SIZES = [1, 2, 500, 501, 10**6, 2**40]
TIMES = [NOW + timedelta(microseconds=n // 2, hours=n // 7) for n in range(20)]


def _random_image(pick: random.Random) -> Image:
    ident = "".join(pick.choices(ALPHABET, k=6))
    probe = Probe(format="jpg", width=3, height=2, frames=1, orientation=1, alpha=False)
    metadata: dict[str, Any] = dict(pick.choice(UNSEARCHED))
    for pair in pick.sample(PAIRS, pick.choice([0, 1, 1, 2, 5])):
        metadata |= pair
    return Image(
        ident=ident, sha256="ab" * 32, size=pick.choice(SIZES), probe=probe, created=pick.choice(TIMES),
        filename=pick.choice(NAMES), metadata=metadata,
    )  # fmt: skip


def _images(number: int, seed: int) -> list[Image]:
    pick = random.Random(seed)
    return list({image.ident.lower(): image for image in (_random_image(pick) for _ in range(number))}.values())


def _add(catalog: Catalog, image: Image) -> None:
    catalog.claim(image)
    catalog.publish(image.ident)


def _fill(catalog: Catalog) -> list[Image]:
    """Add a few hundred images, and between them others that must not be found; return the former."""
    ready = []
    for number, image in enumerate(_images(330, seed=1)):
        if number % 10 == 3:
            catalog.claim(image)
            continue
        _add(catalog, image)
        if number % 20 == 7:
            catalog.begin_delete(image.ident, trash_s=3600 if number % 40 == 7 else 0)
        elif number % 50 == 12:
            catalog.begin_delete(image.ident)
            catalog.end_delete(image.ident)
        else:
            ready.append(image)
    return ready


# --- the model -------------------------------------------------------------------------------------------------


def _fold(name: str | None) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name or "").casefold())[:200]


def _text(value: object) -> str:
    return (
        str(value).lower() if isinstance(value, bool) else str(value).replace("\0", "\ufffd").replace("\ud800", "?")
    )


def _found(image: Image, search: Search) -> bool:
    return (
        (search.sorting != "filename" or bool(image.filename))
        and (search.filename is None or _fold(image.filename).startswith(_fold(search.filename)))
        and (search.smallest is None or image.size >= search.smallest)
        and (search.largest is None or image.size <= search.largest)
        and (search.created_from is None or image.created >= search.created_from)
        and (search.created_before is None or image.created < search.created_before)
        and all(
            isinstance(image.metadata.get(name), str | int | float) and _text(image.metadata[name]) == _text(value)
            for name, value in search.metadata.items()
        )
    )


def _expected(images: list[Image], search: Search) -> list[str]:
    key: dict[str, Callable[[Image], tuple[Any, str]]] = {
        "newest": lambda image: (image.created, image.ident),
        "largest": lambda image: (image.size, image.ident),
        "filename": lambda image: (_fold(image.filename), image.ident),
    }
    key |= {"oldest": key["newest"], "smallest": key["largest"]}
    found = [image for image in images if _found(image, search)]
    found.sort(key=key[search.sorting], reverse=search.sorting in ("newest", "largest"))
    return [image.ident for image in found]


def _paged(
    catalog: Catalog, search: Search, limit: int, between: Callable[[list[str]], None] = lambda _: None
) -> list[str]:
    """Return the idents of all pages, one after the other; `between` is told all after each."""
    seen: list[str] = []
    while page := catalog.search(search, limit=limit, behind=seen[-1] if seen else None):
        assert len(page) <= limit
        seen += [image.ident for image in page]
        assert len(seen) < 10_000
        if len(page) < limit:
            break
        between(seen)
    return seen


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Catalog, list[Image]]]:
    """A catalog with images of every kind, and those that are ready. Not to be changed."""
    url = f"sqlite:///{tmp_path_factory.mktemp('search') / 'catalog.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("new_database")()
    with closing(Catalog.open(url)) as catalog:
        yield catalog, _fill(catalog)


ORDERS: tuple[Order, ...] = get_args(Order)


@st.composite
def searches(draw: st.DrawFn) -> Search:
    pairs = draw(st.lists(st.sampled_from(PAIRS), max_size=3))
    times = st.sampled_from([*TIMES, NOW - timedelta(days=1), NOW + timedelta(days=1)])
    sizes = st.sampled_from([*SIZES, 0, -5, 3, 2**63, 2**80])
    search = Search(
        filename=draw(st.none() | st.sampled_from(PREFIXES)),
        metadata={name: value for pair in pairs for name, value in pair.items()},
        smallest=draw(st.none() | sizes),
        largest=draw(st.none() | sizes),
        created_from=draw(st.none() | times),
        created_before=draw(st.none() | times),
        order=draw(st.none() | st.sampled_from(ORDERS)),
    )
    try:
        assert search.sorting
    except BadRequest:
        assume(False)
    return search


@given(search=searches(), limit=st.sampled_from([3, 20, 1000]))
def test_pages_joined_are_what_the_model_says(
    filled: tuple[Catalog, list[Image]], search: Search, limit: int
) -> None:
    catalog, images = filled
    assert _paged(catalog, search, limit) == _expected(images, search)


ALONE = [
    *(Search(order=order) for order in ORDERS),
    *(Search(filename=prefix) for prefix in PREFIXES),
    *(Search(metadata=pair, order=order) for pair in PAIRS for order in ORDERS[:2]),
    *(Search(smallest=500, largest=10**6, order=order) for order in ORDERS),
    *(Search(created_from=TIMES[3], created_before=TIMES[15], order=order) for order in ORDERS),
]


def test_every_order_and_filter_alone(filled: tuple[Catalog, list[Image]]) -> None:
    catalog, images = filled
    for search in ALONE:
        expected = _expected(images, search)
        for limit in (2, 1000):
            assert _paged(catalog, search, limit) == expected, search
    assert sum(bool(_expected(images, search)) for search in ALONE) > len(ALONE) * 0.9  # the model finds something


@pytest.mark.parametrize("order", ORDERS)
def test_equal_keys_fall_on_any_edge_of_a_page(filled: tuple[Catalog, list[Image]], order: Order) -> None:
    catalog, images = filled
    for limit in (1, 7, 13, 100):
        assert _paged(catalog, Search(order=order), limit) == _expected(images, Search(order=order))


@given(search=searches(), data=st.data())
def test_a_page_begins_behind_any_image(
    filled: tuple[Catalog, list[Image]], search: Search, data: st.DataObject
) -> None:
    """Even one that the search does not find: outside of its bounds, or without its metadata."""
    catalog, images = filled
    mark = data.draw(st.sampled_from(images))
    assume(mark.filename or search.sorting != "filename")
    whole = replace(
        search, filename=None if search.filename is None else "", metadata={}, smallest=None, largest=None
    )
    order = _expected(images, replace(whole, created_from=None, created_before=None, order=search.sorting))
    behind = set(order[order.index(mark.ident) + 1 :])
    expected = [ident for ident in _expected(images, search) if ident in behind][:50]
    assert [image.ident for image in catalog.search(search, limit=50, behind=mark.ident)] == expected


# --- changes between pages -------------------------------------------------------------------------------------


MOVING = [
    *(Search(order=order) for order in ORDERS),
    Search(filename="img"),
    Search(metadata={"public": True}),
    Search(metadata={"public": True}, order="oldest"),
]


@pytest.mark.parametrize("end", [False, True])
def test_what_was_seen_may_be_deleted_between_pages(catalog: Catalog, end: bool) -> None:
    images = _images(60, seed=2)
    for image in images:
        _add(catalog, image)
    for turn, search in enumerate(MOVING):
        expected = _expected(images, search)
        deleted: list[str] = []

        def delete(seen: list[str], deleted: list[str] = deleted) -> None:
            if len(deleted) < 5:
                catalog.begin_delete(seen[-1])
                deleted.append(seen[-1])
                if end:
                    catalog.end_delete(seen[-1])

        assert _paged(catalog, search, 2, delete) == expected
        assert deleted or turn
        images = [image for image in images if image.ident not in deleted]


def test_behind_a_name_that_is_forgotten_there_is_no_page(catalog: Catalog) -> None:
    """It must not begin anew: who pages on would never end."""
    for image in (image for image in _images(60, seed=3) if image.filename):
        _add(catalog, image)
    mark = catalog.search(Search(order="filename"), limit=5)[-1]
    catalog.begin_delete(mark.ident)
    catalog.end_delete(mark.ident)
    assert catalog.search(Search(order="filename"), behind=mark.ident)
    catalog.forget_deleted(mark.ident)
    with pytest.raises(UnknownImage, match="has no name"):
        catalog.search(Search(order="filename"), behind=mark.ident)
    assert catalog.search(Search(), behind=mark.ident) is not None


@pytest.mark.parametrize("search", MOVING)
def test_images_added_between_pages_move_no_other(catalog: Catalog, search: Search) -> None:
    images = _images(60, seed=4)
    first, later = images[:40], images[40:]
    for image in first:
        _add(catalog, image)
    added: list[str] = []

    def add(_: list[str]) -> None:
        if later:
            added.append(later[-1].ident)
            _add(catalog, later.pop())

    seen = _paged(catalog, search, 3, add)
    assert [ident for ident in seen if ident not in added] == _expected(first, search)
    whole = _expected(images, search)
    assert seen == sorted(seen, key=whole.index)  # those that were still to come are in their place
    assert len(set(seen)) == len(seen)


def test_a_trashed_image_is_not_found_until_it_is_had_back(catalog: Catalog) -> None:
    _add(catalog, replace(_images(1, seed=5)[0], ident="cat", metadata={"album": "a"}, filename="Cat.jpg"))
    by = [Search(metadata={"album": "a"}), Search(filename="cat"), Search()]
    assert [len(catalog.search(search)) for search in by] == [1, 1, 1]
    catalog.begin_delete("cat", trash_s=3600)
    assert [len(catalog.search(search)) for search in by] == [0, 0, 0]
    catalog.undelete("cat")
    assert [len(catalog.search(search)) for search in by] == [1, 1, 1]


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (Search(order="best"), "order='best' is not accepted; accepted: newest, oldest, filename, largest, smallest"),  # type: ignore[arg-type]
        (Search(filename="a", order="newest"), "order=newest does not go with a filename; accepted: filename"),
        (Search(filename="a", metadata={"n": 1}, order="oldest"), "accepted: filename"),
        (Search(metadata={"n": 1}, order="largest"), "order=largest does not go with metadata; accepted: newest, oldest"),
        (Search(metadata={"n": 1}, order="filename"), "accepted: newest, oldest"),
        (Search(metadata={"n": None}), "metadata 'n': null is not searched; accepted: text, number, boolean"),
        (Search(metadata={"n": [1]}), "metadata 'n': list is not searched; accepted: text, number, boolean"),
        (Search(metadata={"a": 1, "n": {}}, order="oldest"), "metadata 'n': dict is not searched"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused(catalog: Catalog, search: Search, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        catalog.search(search)
    assert said in str(refused.value)


def test_a_page_holds_nothing_or_more(catalog: Catalog) -> None:
    assert catalog.search(Search(), limit=0) == []
    with pytest.raises(BadRequest, match="limit=-1 is not accepted"):
        catalog.search(Search(), limit=-1)


@given(
    name=st.text() | st.text(st.characters(categories=["Cs", "Cc"])),
    value=st.text() | st.integers() | st.floats() | st.booleans(),
    size=st.integers(),
    prefix=st.text() | st.text(st.characters(categories=["Cs", "Cc"])),
)
def test_no_text_or_number_is_too_much(
    filled: tuple[Catalog, list[Image]], name: str, value: object, size: int, prefix: str
) -> None:
    catalog, _ = filled
    for search in (
        Search(metadata={name: value}, smallest=size),
        Search(filename=prefix, largest=size, metadata={name: 1}),
    ):
        try:
            assert isinstance(catalog.search(search), list)
        except LazypixError as error:
            pytest.fail(f"{error!r} of {search}")


# --- the order is the same everywhere --------------------------------------------------------------------------


def test_a_database_that_sorts_by_language_changes_no_order(new_database: Callable[[], str]) -> None:
    address = new_database()
    try:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(
                "CREATE DATABASE tongues TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C'"
            )
            tongues = address.rpartition("/")[0] + "/tongues"
    except (psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported):
        pytest.skip("this PostgreSQL cannot make a database with an ICU locale")
    with psycopg.connect(tongues) as connection:
        (row,) = connection.execute("SELECT 'a' < 'B'").fetchall()
        assert row == (True,)  # it does sort by language
    images = _images(80, seed=6)
    with closing(Catalog.open(tongues)) as catalog:
        for image in images:
            _add(catalog, image)
        for search in MOVING:
            assert _paged(catalog, search, 7) == _expected(images, search)
        assert [image.ident for image in catalog.walk()] == sorted(image.ident for image in images)


def test_a_name_with_nul_is_stored(catalog: Catalog) -> None:
    _add(catalog, replace(_images(1, seed=7)[0], ident="cat", filename=base_name("folder/a\0b.png")))
    assert [image.filename for image in catalog.search(Search(filename="AB"))] == ["ab.png"]
    assert base_name("\0") is None
