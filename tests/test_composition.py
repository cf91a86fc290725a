"""Opening what the settings describe: all of it, or nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.ports import free_port

from lazypix.composition import open_library, open_listening
from lazypix.engine import Engine
from lazypix.engine.idle import IdleEngine
from lazypix.errors import LazypixError
from lazypix.library import Library
from lazypix.settings import Settings, load


class ClosedEngine(IdleEngine):
    """Remembers that it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.mark.parametrize("opening", [open_library, open_listening])
def test_the_engine_of_a_library_that_cannot_be_opened_is_closed(
    tmp_path: Path, opening: Callable[[Settings, Engine], Library]
) -> None:
    nowhere = f"postgresql://lazypix@127.0.0.1:{free_port()}/none"
    engine = ClosedEngine()
    with pytest.raises(LazypixError):
        opening(load({"data": tmp_path / "data", "catalog": nowhere}, {}), engine)
    assert engine.closed == 1
