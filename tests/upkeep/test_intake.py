"""What is done with an image from elsewhere, as a table; and the crew that does it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest

from lazypix.catalog import Image, State
from lazypix.errors import Busy, IdentTaken
from lazypix.plan import Probe
from lazypix.upkeep.crew import Crew
from lazypix.upkeep.intake import next_step


def entry(state: State, sha256: str = "aa", *, day: int = 1, damaged: bool = False) -> tuple[Image, State]:
    probe = Probe(format="jpg", width=1, height=1)
    created = datetime(2026, 1, day, tzinfo=UTC)
    return Image(ident="cat", sha256=sha256, size=1, probe=probe, created=created, damaged=damaged), state


@pytest.mark.parametrize(
    ("state", "there", "following", "keeping"),
    [
        ("ready", None, "add", "add"),
        ("trashed", None, "add", "add"),
        ("deleting", None, "bury", "bury"),
        ("gone", None, "bury", "bury"),
        ("ready", entry("ready"), "skip", "skip"),
        ("ready", entry("ready", day=2), "skip", "skip"),
        ("ready", entry("ready", damaged=True), "mend", "mend"),
        ("ready", entry("ready", "bb"), IdentTaken, IdentTaken),
        ("ready", entry("trashed"), "undelete", IdentTaken),
        ("ready", entry("gone"), IdentTaken, IdentTaken),
        ("ready", entry("pending"), Busy, Busy),
        ("ready", entry("pending", day=2), Busy, Busy),
        ("ready", entry("pending", "bb"), IdentTaken, IdentTaken),
        ("ready", entry("withdrawn"), Busy, Busy),
        ("trashed", entry("ready"), "trash", "skip"),
        ("trashed", entry("trashed"), "skip", "skip"),
        ("trashed", entry("deleted"), "skip", "skip"),
        ("trashed", entry("pending"), Busy, Busy),
        ("deleted", entry("ready"), "delete", "skip"),
        ("deleted", entry("ready", "bb"), IdentTaken, IdentTaken),
        ("deleted", entry("trashed"), "delete", "skip"),
        ("deleted", entry("pending"), Busy, Busy),
        ("deleted", entry("pending", day=2), Busy, Busy),
        ("deleting", entry("gone"), "skip", "skip"),
        ("gone", entry("deleting", "bb"), "skip", "skip"),
    ],
)
def test_what_is_done_with_an_image(
    state: State, there: tuple[Image, State] | None, following: str | type[Exception], keeping: str | type[Exception]
) -> None:
    for follow, expected in ((True, following), (False, keeping)):
        if isinstance(expected, str):
            assert next_step(entry(state)[0], state, there, follow=follow) == expected
        else:
            with pytest.raises(expected):
                next_step(entry(state)[0], state, there, follow=follow)


def test_a_crew_ends_with_the_first_error() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("three")
        done.append(number)

    def work_all() -> None:
        with Crew(1) as crew:
            for number in range(100):
                crew.give(partial(work, number))

    with pytest.raises(ValueError, match="three"):
        work_all()
    assert done == [0, 1, 2]
