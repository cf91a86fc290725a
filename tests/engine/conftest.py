"""Fixtures for the tests of engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engine import pictures
from tests.engine.mischief import Named


@pytest.fixture
def named(tmp_path: Path) -> Named:
    """A function that makes an image file of a given name, once: a renderer may be reading it."""

    def make(name: str) -> str:
        path = tmp_path / f"{name}.png"
        if not path.exists():
            path.write_bytes(pictures.encoded(pictures.quadrants()))
        return str(path)

    return make
