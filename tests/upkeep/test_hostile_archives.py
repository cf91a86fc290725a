"""Archives that are cut off, or made to do harm."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.upkeep.archives import edited, imported, members, packed
from tests.upkeep.libraries import JPG, PNG
from tests.watched import all_blobs

from lazypix import Library, Limits
from lazypix.engine.idle import IdleEngine
from lazypix.errors import BadArchive
from lazypix.stores.memory import MemoryStore

Open = Callable[..., Library]


def test_an_archive_that_ends_early_is_noticed_wherever_it_does(one: bytes, tmp_path: Path) -> None:
    end = one.index(b"end.json") + 1024
    for number, cut in enumerate(range(0, len(one), 512)):
        target = Library.open(tmp_path / str(number), engine=IdleEngine(), store=MemoryStore())
        with target:
            if cut >= end:
                assert imported(target, one[:cut], trust=True).copied == 1
                continue
            for at in (cut, cut + 100):
                with pytest.raises(BadArchive):
                    imported(target, one[:at], trust=True)
            assert imported(target, one, trust=True).failed == 0
            assert target.original("cat") == JPG
            assert list((tmp_path / str(number) / "incoming").iterdir()) == []


def linked(kind: bytes, name: str = "cat/origin.jpg") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (linked(tarfile.SYMTYPE), "symbolic link"),
        (linked(tarfile.LNKTYPE), "hard link"),
        (linked(tarfile.CHRTYPE), "device"),
        (linked(tarfile.BLKTYPE), "device"),
        (linked(tarfile.FIFOTYPE), "pipe"),
        (linked(b"9"), "unknown kind"),
        ("/etc/passwd", "'/etc/passwd'"),
        ("../cat/origin.jpg", "'../cat/origin.jpg'"),
        ("cat/../../origin.jpg", "'cat/../../origin.jpg'"),
        ("cat/a/b", "'cat/a/b'"),
        ("cat/origin.php", "'cat/origin.php'"),
        ("dog/origin.jpg", "'dog/origin.jpg'"),
        ("cat/origin\n.jpg", "leads somewhere else"),
        ("x" * 70_000, "header"),
        ("lazypix.json", "does not belong"),
    ],
)
def test_what_does_not_belong_into_an_archive_is_refused(
    opened: Open, one: bytes, member: str | tarfile.TarInfo, words: str
) -> None:
    found = list(members(one).items())
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        target = opened(str(kind))
        with pytest.raises(BadArchive, match=words):
            imported(target, packed([*found[:2], (member, b""), *found[2:]], kind))
        assert all_blobs(target) == []


def test_members_that_come_twice_or_behind_the_end_are_refused(opened: Open, one: bytes) -> None:
    head, facts, origin, end = members(one).items()
    for contents, words in (
        ([head, facts, origin, origin, end], "twice"),
        ([head, facts, origin, end, facts], "behind its end"),
        ([head, origin, end], "does not belong"),
        ([facts, origin, end], "lazypix.json"),
        ([head, end], "missing"),
        ([head, facts, origin], "no end.json"),
        ([], "lazypix.json"),
    ):
        with pytest.raises(BadArchive, match=words):
            imported(opened(), packed(contents))
    twice = [head, facts, origin, facts, ("cat/origin.jpg", PNG), ("end.json", b'{"images": 2, "deleted": 0}')]
    report = imported(target := opened("twice"), packed(twice), threads=1)
    assert report.copied + report.skipped + report.failed == 2
    assert target.original("cat") == JPG


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 64}, {"size": 1}, {"size": 2**40},
    ],
)  # fmt: skip
@pytest.mark.parametrize("trust", [True, False])
def test_bytes_that_are_not_what_was_told_are_not_taken(
    opened: Open, one: bytes, change: dict[str, Any], trust: bool
) -> None:
    archive = edited(one, "cat/image.json", lambda facts: facts.update(change))
    target = opened()
    report = imported(target, archive, trust=trust)
    assert report.failures == (("cat", "cat/origin.jpg does not have the bytes of which image.json tells"),)
    assert (all_blobs(target), target.catalog.entries(["cat"])) == ([], {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ident", "../cat"), ("ident", "dog"), ("ident", 1), ("state", "pending"), ("sha256", "0"), ("size", -1),
        ("size", True), ("size", 2**70), ("created", "today"), ("created", None), ("created", "0001-01-01T00:00:00+23:59"),
        ("filename", 1), ("metadata", []), ("metadata", {"a": "\ud800"}), ("strikes", -1), ("probe", None),
        ("probe", {}), ("variants", {}), ("variants", [1]), ("variants", [{"stem": "../../x"}]), ("variants", [{"stem": "10x,fit=inside"}]),
    ],
)  # fmt: skip
def test_facts_that_cannot_be_are_refused_by_name(opened: Open, one: bytes, key: str, value: object) -> None:
    archive = edited(one, "cat/image.json", lambda facts: facts.update({key: value}))
    with pytest.raises(BadArchive, match=r"cat/image\.json"):
        imported(target := opened(), archive)
    assert all_blobs(target) == []


@pytest.mark.parametrize("preview", ["no", "~~~~", 5, "A" * 400])
def test_a_preview_that_is_none_is_refused(opened: Open, one: bytes, preview: object) -> None:
    archive = edited(one, "cat/image.json", lambda facts: facts["probe"].update(thumbhash=preview))
    with pytest.raises(BadArchive, match="thumbhash="):
        imported(opened(), archive)


def test_an_archive_from_before_there_were_previews_is_taken(opened: Open, one: bytes) -> None:
    archive = edited(one, "cat/image.json", lambda facts: facts["probe"].pop("thumbhash"))
    assert imported(target := opened(), archive, trust=True).copied == 1
    assert target.get("cat").probe.thumbhash is None


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_json_that_is_none_is_refused(opened: Open, one: bytes, data: bytes) -> None:
    head, _, origin, end = members(one).items()
    for contents in ([("lazypix.json", data)], [head, ("cat/image.json", data), origin, end]):
        with pytest.raises(BadArchive, match="json"):
            imported(opened(), packed(contents))


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)[-512:]


@pytest.mark.parametrize("size", [2**33, 2**60])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_a_huge_size_that_is_only_told_costs_nothing(opened: Open, one: bytes, kind: bytes, size: int) -> None:
    head = packed(list(members(one).items())[:2])
    head = head[: -(-len(head.rstrip(b"\0")) // 512) * 512]
    for name in ("cat/origin.jpg", "cat/image.json", "lazypix.json"):
        with pytest.raises(BadArchive):
            imported(opened(), head + header(name, size, kind) + bytes(2048))


def test_what_is_over_the_limits_is_told(opened: Open, one: bytes) -> None:
    for number, limits in enumerate((Limits(max_bytes=100), Limits(max_pixels=100))):
        for trust in (True, False):
            target = opened(f"{number}{trust}", limits=limits)
            ((ident, reason),) = imported(target, one, trust=trust).failures
            assert (ident, "limit" in reason or "pixels" in reason) == ("cat", True)
            assert all_blobs(target) == []


@pytest.mark.parametrize("trust", [True, False])
def test_what_is_no_image_is_not_taken(opened: Open, one: bytes, trust: bool) -> None:
    for data in (b"<html>", PNG) if trust else (b"<html>", JPG[:-400]):
        found = members(one)
        facts = json.loads(found["cat/image.json"])
        facts |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        found |= {"cat/image.json": json.dumps(facts).encode(), "cat/origin.jpg": data}
        report = imported(opened(), packed(list(found.items())), trust=trust)
        assert (report.copied, report.failed) == (0, 1)


def test_a_probe_that_lies_is_not_believed(opened: Open, one: bytes) -> None:
    lie = {"format": "jpg", "width": 7, "height": 7, "frames": 9, "orientation": 8, "alpha": True}
    archive = edited(one, "cat/image.json", lambda facts: facts.update(probe=lie))
    imported(target := opened(), archive)
    image = target.get("cat")
    assert (image.width, image.height, image.frames, image.probe.alpha) == (120, 80, 1, False)
