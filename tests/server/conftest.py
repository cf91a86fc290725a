"""One server for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.running import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the default settings and an empty folder."""
    with running(tmp_path_factory.mktemp("server") / "data") as started:
        yield started
