"""Whether what is remembered is still true: within a process, and between processes of a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lazypix.generations import Generations


def test_a_ticket_is_good_until_its_image_changes(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "generations")
    cat, dog = generations.ticket("cat"), generations.ticket("dog")
    assert generations.is_valid(cat)
    generations.change("cat")
    assert not generations.is_valid(cat)
    assert generations.is_valid(dog)
    assert generations.is_valid(generations.ticket("cat"))


def test_a_number_does_not_come_again(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "generations")
    tickets = []
    for _ in range(100):
        tickets.append(generations.ticket("cat"))
        generations.change("cat")
    assert len(set(tickets)) == 100
    assert not any(generations.is_valid(ticket) for ticket in tickets)


def test_a_change_by_another_process_is_seen_at_once(tmp_path: Path) -> None:
    path = tmp_path / "generations"
    generations = Generations(path)
    ticket = generations.ticket("cat")
    script = f"from lazypix.generations import Generations; Generations({str(path)!r}).change('cat')"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=180)
    assert not generations.is_valid(ticket)
    assert Generations(path).ticket("cat") == generations.ticket("cat")


def test_all_can_be_changed_at_once(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "generations")
    tickets = [generations.ticket(f"cat{number}") for number in range(1000)]
    other = Generations(tmp_path / "generations")
    other.change_all()
    assert not any(generations.is_valid(ticket) for ticket in tickets)
    assert generations.is_valid(generations.ticket("cat"))
    assert other.ticket("cat") == generations.ticket("cat")
