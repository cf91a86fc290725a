"""Archives for tests: as we write them, and as strangers would."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

from lazypix import Library
from lazypix.upkeep.archive import export_library, import_library
from lazypix.upkeep.report import Report

Edit = Callable[[dict[str, Any]], Any]


def exported(library: Library, **options: Any) -> bytes:
    file = io.BytesIO()
    assert export_library(library, file, **options).failed == 0
    return file.getvalue()


def imported(library: Library, archive: bytes, **options: Any) -> Report:
    return import_library(library, io.BytesIO(archive), **options)


def members(archive: bytes) -> dict[str, bytes]:
    """Return what a stranger's program finds in an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def packed(contents: Sequence[tuple[str | tarfile.TarInfo, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Pack an archive as a stranger would."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in contents:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def edited(archive: bytes, name: str, edit: Edit) -> bytes:
    """Return the archive with one of its JSON files changed."""
    found = members(archive)
    facts = json.loads(found[name])
    edit(facts)
    found[name] = json.dumps(facts).encode()
    return packed(list(found.items()))
