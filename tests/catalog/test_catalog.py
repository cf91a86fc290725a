"""The catalog: the states of the upload protocol, paging, and the migrations."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, text

from lazypix.catalog import LASTING, Catalog, Image, Refused, Search, StoredVariant
from lazypix.catalog.recorder import Recorded, VariantRecorder
from lazypix.catalog.schema import HEAD, MIGRATIONS
from lazypix.catalog.tables import metadata
from lazypix.errors import Busy, IdentTaken, SettingsError, StoreFailed, StoreFull, UnknownImage
from lazypix.plan import Probe

NOW = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


def _image(ident: str = "cat", created: datetime = NOW) -> Image:
    probe = Probe(format="gif", width=120, height=80, frames=3, orientation=6, alpha=True)
    return Image(
        ident=ident, sha256="ab" * 32, size=12345, probe=probe, created=created, filename="Kätze 猫.gif",
        metadata={"who": ["me", 1, None, 0.5], "nested": {"ä": True}},
    )  # fmt: skip


def _variant(stem: str = "200x100", name: str = "webp") -> StoredVariant:
    return StoredVariant(stem=stem, format=name, size=678, created=NOW, sha256="cd" * 32, used=NOW)


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
    assert catalog.search(Search()) == []
    catalog.publish("cat")
    assert catalog.get("cat") == _image()
    assert catalog.search(Search()) == [_image()]


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
    catalog.variants.add([("cat", _variant())])
    assert catalog.begin_delete("cat") == _image()
    for gone in (catalog.get, catalog.begin_delete):
        with pytest.raises(UnknownImage):
            gone("cat")
    assert catalog.search(Search()) == []
    assert catalog.unfinished() == [("cat", "deleting")]
    catalog.end_delete("cat")
    assert catalog.unfinished() == []
    assert catalog.variants.of("cat") == []
    with pytest.raises(IdentTaken):
        catalog.claim(_image())


def test_only_a_ready_image_is_deleted(catalog: Catalog) -> None:
    catalog.claim(_image())
    for ident in ("cat", "nobody"):
        with pytest.raises(UnknownImage):
            catalog.begin_delete(ident)
    catalog.publish("cat")
    assert catalog.get("cat")


def test_what_is_unfinished_is_told_by_its_age(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("lazypix.catalog._now", lambda: (time.time_ns() - 7200 * 10**9) // 1000)
        catalog.claim(_image("old"))
        _ready(catalog, "done")
    catalog.claim(_image("new"))
    assert sorted(catalog.unfinished()) == [("new", "pending"), ("old", "pending")]
    assert catalog.unfinished(older_than_s=3600) == [("old", "pending")]
    assert catalog.unfinished(older_than_s=3 * 3600) == []


def test_a_claim_is_as_old_as_the_claim(catalog: Catalog) -> None:
    """The image may be years old, when it comes from another library."""
    catalog.claim(_image("cat", datetime.now(UTC) - timedelta(days=365)))
    assert catalog.unfinished(older_than_s=3600) == []


def test_a_deletion_is_as_old_as_the_deletion(catalog: Catalog) -> None:
    """Contract of `unfinished`: in `deleting` *for this long*; the image itself may be years old."""
    _ready(catalog, "cat", datetime.now(UTC) - timedelta(days=365))
    catalog.begin_delete("cat")
    assert catalog.unfinished(older_than_s=3600) == []


# --- from elsewhere ----------------------------------------------------------------------------------------------


def test_images_from_elsewhere_come_in_the_state_they_had(catalog: Catalog) -> None:
    for state in LASTING:
        assert catalog.adopt(replace(_image(state), metadata={"who": "me"}), state=state)
        assert not catalog.adopt(_image(state))
    catalog.claim(_image("pending"))
    catalog.claim(_image("withdrawn"))
    catalog.withdraw("withdrawn")
    assert catalog.entries(["ready", "gone", "nobody"]) == {
        "ready": (replace(_image("ready"), metadata={"who": "me"}), "ready"),
        "gone": (replace(_image("gone"), filename=None, metadata={}), "gone"),
    }
    assert sorted(state for _, state in catalog.walk_all()) == sorted(LASTING)
    assert [image.ident for image, _ in catalog.walk_all(after="gone")] == ["ready", "trashed"]
    assert catalog.numbers() == dict.fromkeys((*LASTING, "pending", "withdrawn"), 1)
    catalog.undelete("trashed")
    found = catalog.search(Search(metadata={"who": "me"}))
    assert sorted(image.ident for image in found) == ["ready", "trashed"]


def test_a_claim_is_for_who_holds_its_token(catalog: Catalog) -> None:
    first = catalog.claim(_image())
    second = catalog.take_over("cat", older_than_s=0)
    assert second is not None
    for token in (first, second):
        with pytest.raises(UnknownImage):  # the one has lost it, the other has it withdrawn
            catalog.publish("cat", token)
    assert not catalog.withdraw("cat", first)
    catalog.abandon("cat", first)
    assert catalog.states(["cat"]) == {"cat": "withdrawn"}
    assert catalog.take_over("cat", older_than_s=60) is None, "somebody has just taken it"
    catalog.abandon("cat", second)
    assert catalog.states(["cat"]) == {}
    catalog.publish("cat", catalog.claim(_image()))
    assert catalog.take_over("cat", older_than_s=0) is None
    assert catalog.get("cat") == _image()


def test_of_many_who_take_a_claim_over_one_does(catalog: Catalog) -> None:
    catalog.claim(_image())
    with ThreadPoolExecutor(6) as pool:
        tokens = list(pool.map(lambda _: catalog.take_over("cat", older_than_s=0.0), range(6)))
    holding = [token for token in tokens if token is not None]
    assert holding
    catalog.abandon("cat", holding[0] if len(holding) == 1 else None)
    assert catalog.states(["cat"]) == {}


def test_the_trash_is_emptied_by_its_own_time(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    catalog.begin_delete("cat", trash_s=3600)
    assert not catalog.empty_trash("cat")
    assert catalog.unfinished("trashed") == []
    catalog.undelete("cat")
    catalog.begin_delete("cat", trash_s=3600)
    catalog.begin_delete("cat")  # for good, out of the trash
    assert catalog.states(["cat"]) == {"cat": "deleting"}
    with pytest.raises(UnknownImage):
        catalog.begin_delete("cat")


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
    assert _race(8, lambda _: catalog.health.strike("cat"), RuntimeError) == 8
    assert catalog.get("cat").strikes == 8
    catalog.health.strike("nobody")


# --- variants --------------------------------------------------------------------------------------------------


def test_variants_are_recorded_once(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    _ready(catalog, "dog")
    rows = [
        ("cat", _variant("200x100", "webp")),
        ("cat", _variant("200x100", "jpg")),
        ("dog", _variant("100x", "png")),
    ]
    assert catalog.variants.add(rows) == Refused()
    later = replace(_variant("200x100", "jpg"), size=9, created=datetime(2040, 1, 1, tzinfo=UTC))
    new = ("cat", _variant("100x", "png"))
    assert catalog.variants.add([("cat", later), new, new]) == Refused()
    assert catalog.variants.of("cat") == [
        _variant("100x", "png"),
        later,
        _variant("200x100", "webp"),
    ]
    assert catalog.variants.of("dog") == [_variant("100x", "png")]
    assert catalog.variants.of("nobody") == []
    assert _variant().facts()["name"] == "200x100.webp"


@pytest.mark.parametrize("deleted", [False, True])
def test_a_variant_of_an_image_that_is_not_there_is_not_recorded(catalog: Catalog, deleted: bool) -> None:
    catalog.claim(_image())
    if deleted:
        catalog.publish("cat")
        catalog.variants.add([("cat", _variant())])
        catalog.begin_delete("cat")
    _ready(catalog, "dog")
    rows = [("cat", _variant()), ("dog", _variant()), ("cat", _variant("other")), ("nobody", _variant())]
    assert catalog.variants.add(rows) == Refused(gone=frozenset({"cat", "nobody"}))
    assert catalog.variants.of("cat") == ([_variant()] if deleted else [])
    assert catalog.variants.of("dog") == [_variant()]


# --- recording variants ----------------------------------------------------------------------------------------


def test_variants_that_come_within_a_moment_are_recorded_together(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ready(catalog, "cat")
    batches: list[int] = []
    add = catalog.variants.add

    def counted(rows: Sequence[tuple[str, StoredVariant]]) -> Refused:
        batches.append(len(rows))
        return add(rows)

    catalog.variants.add = counted  # type: ignore[method-assign]
    recorder = VariantRecorder(catalog, delay_s=0.2)
    moments: list[float] = []
    over = threading.Event()

    def moment(delay_s: float) -> bool:
        moments.append(delay_s)
        return over.wait(20)

    with monkeypatch.context() as patched:
        patched.setattr(recorder._closing, "wait", moment)
        waiting = [recorder.record("cat", _variant(f"{width}x")) for width in range(1, 51)]
        assert not waiting[0].done()
        over.set()
        assert all(done.result(20) for done in waiting)
    assert len(catalog.variants.of("cat")) == 50
    assert (moments, batches) == ([0.2], [50])
    last = recorder.record("cat", _variant("60x"))
    recorder.close()
    assert last.result(0)
    assert batches == [50, 1]
    with pytest.raises(Busy):
        recorder.record("cat", _variant("70x")).result(0)


def test_who_records_a_variant_is_told_whether_its_image_is_there(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    _ready(catalog, "gone")
    catalog.begin_delete("gone")
    recorder = VariantRecorder(catalog)
    told = {ident: recorder.record(ident, _variant()) for ident in ("cat", "dog", "gone")}
    recorder.close()
    assert {ident: done.result(0) for ident, done in told.items()} == {
        "cat": Recorded(), "dog": Recorded(gone=True), "gone": Recorded(gone=True),
    }  # fmt: skip
    assert [bool(told[ident].result(0)) for ident in ("cat", "dog", "gone")] == [True, False, False]


def test_a_row_with_a_greater_fence_stays(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    first, late, next_one = (replace(_variant(), fence=fence, size=fence) for fence in (20, 10, 30))
    other = replace(_variant("other"), fence=10)
    assert catalog.variants.add([("cat", first)]) == Refused()
    refused = catalog.variants.add([("cat", late), ("cat", other), ("gone", late)])
    assert refused == Refused(gone=frozenset({"gone"}), late={("cat", "200x100", "webp"): 20})
    assert catalog.variants.of("cat") == [first, other]
    assert catalog.variants.add([("cat", replace(first, size=21))]) == Refused(), "its own number may come again"
    assert catalog.variants.add([("cat", next_one)]) == Refused()
    assert catalog.variants.of("cat") == [next_one, other]


def test_what_was_made_without_a_lease_leaves_the_fence(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    catalog.variants.add([("cat", replace(_variant(), fence=20, size=1))])
    assert catalog.variants.add([("cat", replace(_variant(), size=2))]) == Refused()
    assert [(v.size, v.fence) for v in catalog.variants.of("cat")] == [(2, 20)]
    assert catalog.variants.add([("cat", replace(_variant(), fence=10))]).late == {("cat", "200x100", "webp"): 20}


def test_of_two_holders_that_record_at_once_the_later_one_stays(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    barrier = threading.Barrier(2)

    def record(fence: int) -> list[Refused]:
        told = []
        for turn in range(30):
            barrier.wait(20)
            told.append(catalog.variants.add([("cat", replace(_variant(f"{turn}x"), fence=fence, size=fence))]))
        return told

    with ThreadPoolExecutor(2) as pool:
        early, later = pool.map(record, (10, 20))
    assert later == [Refused()] * 30
    assert {v.size for v in catalog.variants.of("cat")} == {20}
    assert all(refused.late in ({}, {("cat", f"{turn}x", "webp"): 20}) for turn, refused in enumerate(early))


def test_who_records_too_late_is_told_the_fence_that_stays(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    catalog.variants.add([("cat", replace(_variant(), fence=20))])
    recorder = VariantRecorder(catalog)
    told = [recorder.record("cat", replace(_variant(stem), fence=10)) for stem in ("200x100", "other")]
    recorder.close()
    assert [done.result(0) for done in told] == [Recorded(later_fence=20), Recorded()]
    assert [bool(done.result(0)) for done in told] == [False, True]


def test_a_catalog_in_trouble_is_told_to_who_records(catalog: Catalog) -> None:
    def fail(_: object) -> Refused:
        raise StoreFailed("The catalog is not available")

    catalog.variants.add = fail  # type: ignore[method-assign, assignment]
    recorder = VariantRecorder(catalog)
    with pytest.raises(StoreFailed):
        recorder.record("cat", _variant()).result(20)
    recorder.close()


def test_uses_are_noted_together_and_late(catalog: Catalog) -> None:
    _ready(catalog, "cat")
    catalog.variants.add([("cat", _variant(stem)) for stem in ("1x", "2x", "3x")])
    recorder = VariantRecorder(catalog, uses_delay_s=3600)
    recorder.note_use(("cat", "3x", "webp"))
    recorder.note_use(("cat", "1x", "webp"))
    recorder.note_use(("cat", "no such", "webp"))
    recorder.close()
    assert [variant.stem for _, variant in catalog.variants.least_used(limit=1)] == ["2x"]
    used = {variant.stem: variant.used for variant in catalog.variants.of("cat")}
    assert used["2x"] == NOW
    assert used["1x"] == used["3x"] != NOW


# --- paging ----------------------------------------------------------------------------------------------------


def test_pages_are_newest_first_and_without_gaps(catalog: Catalog) -> None:
    times = [NOW + timedelta(microseconds=number // 3) for number in range(20)]  # three at the same time
    for number, created in enumerate(times):
        _ready(catalog, f"i{number:02}", created)
    expected = [f"i{number:02}" for number in reversed(range(20))]
    for limit in (1, 2, 3, 7, 20, 100):
        seen: list[str] = []
        while page := catalog.search(Search(), limit=limit, behind=seen[-1] if seen else None):
            assert len(page) <= limit
            seen += [image.ident for image in page]
        assert seen == expected


def test_a_page_can_begin_after_an_image_deleted_meanwhile(catalog: Catalog) -> None:
    for number in range(4):
        _ready(catalog, f"i{number}", NOW + timedelta(seconds=number))
    assert [image.ident for image in catalog.search(Search(), limit=2)] == ["i3", "i2"]
    catalog.begin_delete("i2")
    catalog.end_delete("i2")
    assert [image.ident for image in catalog.search(Search(), behind="i2")] == ["i1", "i0"]


def test_a_page_after_nothing_known_is_refused(catalog: Catalog) -> None:
    with pytest.raises(UnknownImage, match="no image nobody"):
        catalog.search(Search(), behind="nobody")


# --- the database ----------------------------------------------------------------------------------------------


def test_what_was_written_is_there_after_reopening(url: str) -> None:
    catalog = Catalog.open(url)
    _ready(catalog, "cat")
    catalog.close()
    again = Catalog.open(url)
    assert again.get("cat") == _image()
    again.close()


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    catalogs = [Catalog.sqlite(tmp_path / "catalog.sqlite") for _ in range(2)]
    try:
        won = _race(8, lambda n: _claim_many(catalogs[n % 2], n), StoreFailed)
        assert won == 8
        assert len(catalogs[0].search(Search(), limit=1000)) == 8 * 10
    finally:
        for catalog in catalogs:
            catalog.close()


def test_writers_of_one_process_wait_in_a_row(tmp_path: Path) -> None:
    """Not for SQLite's lock, which is given to whoever asks at the right moment: here nobody may ask twice."""
    catalog = Catalog.sqlite(tmp_path / "catalog.sqlite")
    database = catalog._database
    event.listen(database._engine, "checkout", lambda connection, *_: connection.execute("PRAGMA busy_timeout = 0"))
    with ThreadPoolExecutor(1) as pool:
        with database.writing():
            claiming = pool.submit(catalog.claim, _image())
            assert not wait([claiming], timeout=0.5).done
        claiming.result(20)
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
    event.listen(
        catalog._database._engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1")
    )
    with pytest.raises(StoreFull, match="No space left for the catalog"):
        catalog.claim(replace(_image(), metadata={"novel": "x" * 1_000_000}))
    catalog.close()


def test_a_metadata_value_keeps_its_kind(catalog: Catalog) -> None:
    image = replace(_image(), metadata={})
    catalog.claim(image)
    catalog.publish("cat")
    assert catalog.get("cat").metadata == {}


def _engine(url: str) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def test_the_migrated_schema_is_that_of_the_tables(url: str) -> None:
    Catalog.open(url).close()
    engine = _engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def _at(url: str, revision: str) -> None:
    """Make a database as the release with this schema made it, with an image and a variant in it."""
    engine = _engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for number in range(2500):  # more than one page of whatever the migration reads
            connection.execute(
                text(
                    "INSERT INTO images (ident, state, since_us, created_us, sha256, size, format, width, height, frames,"
                    " orientation, alpha, filename, metadata, strikes) VALUES (:ident, 'ready', 1, :n, :sha, 5, 'jpg', 4,"
                    " 3, 1, 1, :no, :name, :metadata, 0)"
                ),
                {
                    "ident": f"i{number:04}", "n": number, "sha": "ab" * 32, "no": False, "name": f"Ünder-{number}.JPG",
                    "metadata": json.dumps({"album": f"a{number % 7}", "n": number, "deep": {"x": 1}}),
                },
            )  # fmt: skip
        connection.execute(
            text("INSERT INTO variants (ident, stem, format, size, created_us) VALUES ('i0001', '5x', 'jpg', 7, 99)")
        )
    engine.dispose()


@pytest.mark.parametrize("revision", [r.revision for r in ScriptDirectory(str(MIGRATIONS)).walk_revisions()])
def test_every_released_schema_is_brought_up_and_loses_nothing(url: str, revision: str) -> None:
    _at(url, revision)
    with closing(Catalog.open(url)) as catalog:
        image = catalog.get("i0042")
        assert (image.filename, image.metadata, image.damaged) == (
            "Ünder-42.JPG",
            {"album": "a0", "n": 42, "deep": {"x": 1}},
            False,
        )
        (variant,) = catalog.variants.of("i0001")
        assert (variant.stem, variant.size) == ("5x", 7)
        if revision == "0001":  # later ones write these along with the image
            assert [i.ident for i in catalog.search(Search(filename="ünder-42."))] == ["i0042"]
            assert [i.ident for i in catalog.search(Search(metadata={"n": 42, "album": "a0"}))] == ["i0042"]
            assert len(catalog.search(Search(metadata={"album": "a0"}), limit=1000)) == 358
            assert variant.used == variant.created
            assert catalog.health.unchecked(until_us=-1, limit=1) == [], "nothing looks damaged"
            assert [image.ident for _, image in catalog.health.unchecked(until_us=3, limit=9)] == [
                "i0000",
                "i0001",
                "i0002",
                "i0003",
            ]
    Catalog.open(url).close()


def test_a_catalog_of_a_newer_release_is_refused(url: str) -> None:
    Catalog.open(url).close()
    engine = _engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SettingsError, match=r"newer lazypix.*9999"):
        Catalog.open(url)


def test_many_processes_open_a_new_database_at_once(url: str) -> None:
    script = f"""
import sys
from lazypix.catalog import Catalog, Search
print("ready", flush=True)
sys.stdin.readline()
catalog = Catalog.open({url!r})
assert catalog.search(Search()) == []
catalog.close()
"""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(6)
        ]
        for process in processes:
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(60) for process in processes] == [0] * 6
    Catalog.open(url).close()


def test_sqlite_is_set_to_survive_a_power_cut(tmp_path: Path) -> None:
    catalog = Catalog.sqlite(tmp_path / "catalog.sqlite")
    with catalog._database.writing() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    catalog.close()


@pytest.mark.parametrize("name", ["a?b", "100%", "a b", "a%20b", "ü#1"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with closing(Catalog.sqlite(tmp_path / name / "catalog.sqlite")) as catalog:
        _ready(catalog, "cat")
        catalog.ping()
    assert (tmp_path / name / "catalog.sqlite").stat().st_size > 0


@pytest.mark.parametrize(
    ("url_", "said"),
    [
        ("mysql://me:secret@host/db", "mysql"),
        ("sqlite://", "sqlite:///<path>"),
        ("nonsense", "malformed"),
        ("postgresql+psycopg2://me:secret@host/db", "accepted"),
    ],
)
def test_other_databases_are_refused_without_telling_secrets(url_: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Catalog.open(url_)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_postgresql_that_is_not_there_is_told_without_where() -> None:
    with pytest.raises(StoreFailed) as refused:
        Catalog.open("postgresql://somebody:secret@127.0.0.1:1/db")
    assert str(refused.value) == "The catalog is not available (OperationalError)"
