"""The catalog: the states of the upload protocol, paging, and the migrations."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text
from tests.waiting import until

from lazypix.catalog import Catalog, Image, StoredVariant
from lazypix.catalog.recorder import VariantRecorder
from lazypix.catalog.schema import HEAD, MIGRATIONS
from lazypix.catalog.tables import metadata
from lazypix.errors import IdentTaken, StoreFailed, StoreFull, UnknownImage
from lazypix.plan import Probe

NOW = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.sqlite(tmp_path / "catalog.sqlite")
    yield opened
    opened.close()


def _image(ident: str = "cat", created: datetime = NOW) -> Image:
    probe = Probe(format="gif", width=120, height=80, frames=3, orientation=6, alpha=True)
    return Image(
        ident=ident, sha256="ab" * 32, size=12345, probe=probe, created=created, filename="Kätze 猫.gif",
        metadata={"who": ["me", 1, None, 0.5], "nested": {"ä": True}},
    )  # fmt: skip


def _variant(stem: str = "200x100", name: str = "webp") -> StoredVariant:
    return StoredVariant(stem=stem, format=name, size=678, created=NOW)


def _ready(catalog: Catalog, ident: str, created: datetime = NOW) -> Image:
    image = _image(ident, created)
    catalog.claim(image)
    catalog.publish(ident)
    return image


# --- the protocol ----------------------------------------------------------------------------------------------


def test_an_image_exists_from_its_publication_on(catalog: Catalog) -> None:
    catalog.claim(_image())
    with pytest.raises(UnknownImage, match="no image cat"):
        catalog.get("cat")
    assert catalog.page() == []
    catalog.publish("cat")
    assert catalog.get("cat") == _image()
    assert catalog.page() == [_image()]


def test_what_is_known_is_upright(catalog: Catalog) -> None:
    image = _ready(catalog, "cat")
    assert (image.width, image.height, image.frames, image.format) == (80, 120, 3, "gif")
    facts = catalog.get("cat").facts()
    assert (facts["width"], facts["height"], facts["created"]) == (80, 120, "2024-05-06T07:08:09.123456+00:00")


@pytest.mark.parametrize("state", ["pending", "ready", "deleting", "deleted"])
def test_an_ident_is_claimed_once_for_ever(catalog: Catalog, state: str) -> None:
    catalog.claim(_image())
    if state != "pending":
        catalog.publish("cat")
    if state in ("deleting", "deleted"):
        catalog.begin_delete("cat")
    if state == "deleted":
        catalog.end_delete("cat")
    with pytest.raises(IdentTaken, match="cat is taken; existing data is never replaced"):
        catalog.claim(_image())


def test_an_abandoned_claim_never_was(catalog: Catalog) -> None:
    catalog.claim(_image())
    assert catalog.withdraw("cat")
    with pytest.raises(UnknownImage):
        catalog.publish("cat")  # never again, even if its blobs are not removed yet
    assert catalog.unfinished() == [("cat", "withdrawn")]
    catalog.abandon("cat")
    assert catalog.unfinished() == []
    _ready(catalog, "cat")
    assert not catalog.withdraw("cat")  # no claim any more: nothing happens
    assert not catalog.withdraw("nobody")
    catalog.abandon("cat")
    assert catalog.get("cat")


def test_only_a_claim_is_published(catalog: Catalog) -> None:
    with pytest.raises(UnknownImage, match="no claim on cat"):
        catalog.publish("cat")
    _ready(catalog, "cat")
    with pytest.raises(UnknownImage):
        catalog.publish("cat")


def test_a_deleted_image_is_gone_and_its_ident_stays_taken(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    catalog.add_variants([("cat", _variant())])
    assert catalog.begin_delete("cat") == _image()
    for gone in (catalog.get, catalog.begin_delete):
        with pytest.raises(UnknownImage):
            gone("cat")
    assert catalog.page() == []
    assert catalog.unfinished() == [("cat", "deleting")]
    catalog.end_delete("cat")
    assert catalog.unfinished() == []
    assert catalog.variants("cat") == []
    with pytest.raises(IdentTaken):
        catalog.claim(_image())


def test_only_a_ready_image_is_deleted(catalog: Catalog) -> None:
    catalog.claim(_image())
    for ident in ("cat", "nobody"):
        with pytest.raises(UnknownImage):
            catalog.begin_delete(ident)
    catalog.publish("cat")
    assert catalog.get("cat")


def test_what_is_unfinished_is_told_by_its_age(catalog: Catalog) -> None:
    now = datetime.now(UTC)
    catalog.claim(_image("old", now - timedelta(hours=2)))
    catalog.claim(_image("new", now))
    _ready(catalog, "done", now - timedelta(hours=2))
    assert sorted(catalog.unfinished()) == [("new", "pending"), ("old", "pending")]
    assert catalog.unfinished(older_than_s=3600) == [("old", "pending")]
    assert catalog.unfinished(older_than_s=3 * 3600) == []


def test_a_deletion_is_as_old_as_the_deletion(catalog: Catalog) -> None:
    """Contract of `unfinished`: in `deleting` *for this long*; the image itself may be years old."""
    _ready(catalog, "cat", datetime.now(UTC) - timedelta(days=365))
    catalog.begin_delete("cat")
    assert catalog.unfinished(older_than_s=3600) == []


# --- races -----------------------------------------------------------------------------------------------------


def _race(threads: int, act: Callable[[int], None], lost: type[Exception]) -> int:
    """Do `act` in many threads at once; return how many succeeded. Others must fail with `lost`."""
    barrier = threading.Barrier(threads)

    def run(number: int) -> bool:
        barrier.wait(30)
        try:
            act(number)
        except lost:
            return False
        return True

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(run, range(threads)))


def test_of_many_claims_exactly_one_wins(tmp_path: Path) -> None:
    catalogs = [Catalog.sqlite(tmp_path / "catalog.sqlite") for _ in range(2)]
    try:
        for turn in range(10):
            won = _race(8, lambda n, turn=turn: catalogs[n % 2].claim(_image(f"cat{turn}")), IdentTaken)  # type: ignore[misc]
            assert won == 1
    finally:
        for catalog in catalogs:
            catalog.close()


def test_of_many_deletions_exactly_one_wins(catalog: Catalog) -> None:
    for turn in range(10):
        _ready(catalog, f"cat{turn}")
        won = _race(8, lambda _, turn=turn: void(catalog.begin_delete(f"cat{turn}")), UnknownImage)  # type: ignore[misc]
        assert won == 1


def void(_: object) -> None:
    """Drop a result."""


def test_strikes_from_many_threads_are_all_counted(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    assert _race(8, lambda _: catalog.strike("cat"), RuntimeError) == 8
    assert catalog.get("cat").strikes == 8
    catalog.strike("nobody")


# --- variants --------------------------------------------------------------------------------------------------


def test_variants_are_recorded_once(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    _ready(catalog, "dog")
    rows = [
        ("cat", _variant("200x100", "webp")),
        ("cat", _variant("200x100", "jpg")),
        ("dog", _variant("100x", "png")),
    ]
    assert catalog.add_variants(rows) == set()
    later = replace(_variant("200x100", "jpg"), created=datetime(2040, 1, 1, tzinfo=UTC))
    new = ("cat", _variant("100x", "png"))
    assert catalog.add_variants([("cat", later), new, new]) == set()
    assert catalog.variants("cat") == [
        _variant("100x", "png"),
        _variant("200x100", "jpg"),
        _variant("200x100", "webp"),
    ]
    assert catalog.variants("dog") == [_variant("100x", "png")]
    assert catalog.variants("nobody") == []
    assert _variant().facts()["name"] == "200x100.webp"


@pytest.mark.parametrize("deleted", [False, True])
def test_a_variant_of_an_image_that_is_not_there_is_not_recorded(catalog: Catalog, deleted: bool) -> None:
    catalog.claim(_image())
    if deleted:
        catalog.publish("cat")
        catalog.add_variants([("cat", _variant())])
        catalog.begin_delete("cat")
    _ready(catalog, "dog")
    rows = [("cat", _variant()), ("dog", _variant()), ("cat", _variant("other")), ("nobody", _variant())]
    assert catalog.add_variants(rows) == {"cat", "nobody"}
    assert catalog.variants("cat") == ([_variant()] if deleted else [])
    assert catalog.variants("dog") == [_variant()]


# --- recording variants ----------------------------------------------------------------------------------------


def test_variants_are_recorded_a_moment_later_and_together(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    batches: list[int] = []
    add = catalog.add_variants

    def counted(rows: Sequence[tuple[str, StoredVariant]]) -> set[str]:
        batches.append(len(rows))
        return add(rows)

    catalog.add_variants = counted  # type: ignore[method-assign]
    recorder = VariantRecorder(catalog, pytest.fail, delay_s=0.2)
    for width in range(1, 51):
        recorder.add("cat", _variant(f"{width}x"))
    assert catalog.variants("cat") == []
    until(lambda: len(catalog.variants("cat")) == 50)
    assert batches == [50]
    recorder.add("cat", _variant("60x"))
    until(lambda: len(catalog.variants("cat")) == 51)
    recorder.close()
    assert batches == [50, 1]


def test_nothing_is_waited_for_when_all_is_to_be_recorded_now(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    recorder = VariantRecorder(catalog, pytest.fail, delay_s=3600)
    recorder.add("cat", _variant("1x"))
    recorder.flush()
    assert len(catalog.variants("cat")) == 1
    recorder.add("cat", _variant("2x"))
    recorder.close()
    assert len(catalog.variants("cat")) == 2


def test_variants_of_images_that_are_gone_are_told(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    gone: list[str] = []
    recorder = VariantRecorder(catalog, gone.append, delay_s=3600)
    for ident in ("cat", "dog", "dog"):
        recorder.add(ident, _variant())
    recorder.close()
    assert gone == ["dog"]


def test_a_catalog_in_trouble_is_logged(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> set[str]:
        raise StoreFailed("The catalog is not available")

    catalog.add_variants = fail  # type: ignore[method-assign, assignment]
    recorder = VariantRecorder(catalog, pytest.fail)
    recorder.add("cat", _variant())
    recorder.close()
    assert "1 variants were stored but not recorded" in caplog.text


# --- paging ----------------------------------------------------------------------------------------------------


def test_pages_are_newest_first_and_without_gaps(catalog: Catalog) -> None:
    times = [NOW + timedelta(microseconds=number // 3) for number in range(20)]  # three at the same time
    for number, created in enumerate(times):
        _ready(catalog, f"i{number:02}", created)
    expected = [f"i{number:02}" for number in reversed(range(20))]
    for limit in (1, 2, 3, 7, 20, 100):
        seen: list[str] = []
        while page := catalog.page(limit=limit, before=seen[-1] if seen else None):
            assert len(page) <= limit
            seen += [image.ident for image in page]
        assert seen == expected


def test_a_page_can_begin_after_an_image_deleted_meanwhile(catalog: Catalog) -> None:
    for number in range(4):
        _ready(catalog, f"i{number}", NOW + timedelta(seconds=number))
    assert [image.ident for image in catalog.page(limit=2)] == ["i3", "i2"]
    catalog.begin_delete("i2")
    catalog.end_delete("i2")
    assert [image.ident for image in catalog.page(before="i2")] == ["i1", "i0"]


def test_a_page_after_nothing_known_is_refused(catalog: Catalog) -> None:
    with pytest.raises(UnknownImage, match="no image nobody"):
        catalog.page(before="nobody")


# --- the database ----------------------------------------------------------------------------------------------


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    catalog = Catalog.sqlite(tmp_path / "catalog.sqlite")
    _ready(catalog, "cat")
    catalog.close()
    again = Catalog.sqlite(tmp_path / "catalog.sqlite")
    assert again.get("cat") == _image()
    again.close()


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    catalogs = [Catalog.sqlite(tmp_path / "catalog.sqlite") for _ in range(2)]
    try:
        won = _race(8, lambda n: _claim_many(catalogs[n % 2], n), StoreFailed)
        assert won == 8
        assert len(catalogs[0].page(limit=1000)) == 8 * 10
    finally:
        for catalog in catalogs:
            catalog.close()


def _claim_many(catalog: Catalog, number: int) -> None:
    for turn in range(10):
        _ready(catalog, f"i{number}-{turn}")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreFailed, match="catalog"):
        Catalog.sqlite(path)


def test_a_full_disk_is_told_from_other_trouble(tmp_path: Path) -> None:
    catalog = Catalog.sqlite(tmp_path / "catalog.sqlite")
    event.listen(catalog._engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1"))
    with pytest.raises(StoreFull, match="No space left for the catalog"):
        catalog.claim(replace(_image(), metadata={"novel": "x" * 1_000_000}))
    catalog.close()


def test_a_metadata_value_keeps_its_kind(catalog: Catalog) -> None:
    image = replace(_image(), metadata={})
    catalog.claim(image)
    catalog.publish("cat")
    assert catalog.get("cat").metadata == {}


def test_the_migrated_schema_is_that_of_the_tables(tmp_path: Path) -> None:
    Catalog.sqlite(tmp_path / "catalog.sqlite").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_many_processes_open_a_new_database_at_once(tmp_path: Path) -> None:
    script = f"""
import sys
from lazypix.catalog import Catalog
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
catalog = Catalog.sqlite({str(tmp_path / "catalog.sqlite")!r})
assert catalog.page() == []
catalog.close()
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    Catalog.sqlite(tmp_path / "catalog.sqlite").close()
