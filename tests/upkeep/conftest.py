"""Libraries and an archive for tests of moving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.upkeep.archives import exported
from tests.upkeep.libraries import JPG

from lazypix import Library
from lazypix.engine.threads import ThreadEngine

Open = Callable[..., Library]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """A function that opens a library in a new folder, or in the one that is named."""
    with ExitStack() as stack:

        def open_it(name: str = "target", **options: Any) -> Library:
            own: dict[str, Any] = {"engine": ThreadEngine(1), "undelete_s": 3600}
            return stack.enter_context(Library.open(tmp_path / name, **own | options))

        yield open_it


@pytest.fixture
def one(tmp_path: Path) -> bytes:
    """An archive of one image."""
    with Library.open(tmp_path / "one", engine=ThreadEngine(1)) as library:
        library.add(JPG, ident="cat", filename="cät.jpg", metadata={"who": "me"})
        return exported(library)
