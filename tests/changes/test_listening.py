"""Listening, driven by a feed and a clock of the test's own: signs of life, gaps, floods, and pauses between attempts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import pytest
from tests.waiting import wait

from lazypix.changes.feed import ANSWER_S, ASK_EVERY_S, NOTICED_S, WAIT_S, FeedLost, News
from lazypix.changes.listening import Listening, Pauses


class Script:
    """A feed that says what the test has it say, and moves the clock by the time that it is waited for."""

    def __init__(self, news: Callable[[float], News]) -> None:
        self.now = 0.0
        self.asked: list[float] = []
        self.closed = False
        self._news = news

    def ask(self) -> None:
        self.asked.append(self.now)

    def wait(self, timeout_s: float) -> News:
        self.now += timeout_s
        return self._news(self.now)

    def close(self) -> None:
        self.closed = True


def _listen(script: Script, heard: Callable[[str], None] = lambda _: None) -> list[float]:
    """Listen to a feed until it is lost; return when everything was distrusted."""
    missed: list[float] = []
    feeds = [script]
    lost = threading.Event()

    def connect() -> Script:
        if feeds:
            return feeds.pop()
        lost.set()
        raise FeedLost("there is no other")

    listening = Listening(connect, lambda _: None, hears_catalog=True, clock=lambda: script.now)
    with closing(listening):
        listening.subscribe(heard, lambda: missed.append(script.now))
        wait(lost)
    assert script.closed
    return missed


def test_silence_is_noticed_in_the_time_that_is_promised() -> None:
    script = Script(lambda _: News())
    (noticed,) = _listen(script)
    assert len(script.asked) == 1
    assert noticed <= NOTICED_S
    assert ASK_EVERY_S + ANSWER_S + WAIT_S <= NOTICED_S


def test_a_feed_that_lags_behind_is_given_up() -> None:
    """Changes come all the time, but never the sign of life behind them."""
    (noticed,) = _listen(Script(lambda now: News(idents=[f"{now}"])))
    assert noticed <= NOTICED_S


def test_a_feed_that_answers_is_believed() -> None:
    def news(now: float) -> News:
        if now > 100:
            raise FeedLost("the end")
        return News(answered=True)

    script = Script(news)
    assert _listen(script) == []
    assert len(script.asked) > 50


@pytest.mark.parametrize(
    ("news", "all_missed"),
    [(News(idents=["x"] * 1000), 0), (News(idents=["x"] * 1001), 1), (News(idents=["x"], incomplete=True), 1)],
)
def test_too_many_at_once_and_gaps_make_everything_distrusted(news: News, all_missed: int) -> None:
    given = [news]

    def once(_: float) -> News:
        if not given:
            raise FeedLost("the end")
        return given.pop()

    heard: list[str] = []
    assert len(_listen(Script(once), heard.append)) == all_missed
    assert len(heard) == (0 if all_missed else len(news.idents))


def test_whatever_goes_wrong_listening_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[int] = []
    missed = threading.Event()

    def connect() -> Script:
        attempts.append(1)
        if len(attempts) < 3:
            raise RuntimeError("a bug")
        return Script(lambda _: News(answered=True))

    with closing(Listening(connect, lambda _: None, hears_catalog=True)) as listening:
        listening.subscribe(lambda _: None, missed.set)
        wait(missed)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "a bug" in caplog.text


def test_pauses_grow_to_a_bound_and_begin_anew_after_a_good_time() -> None:
    now = [0.0]
    pauses = Pauses(lambda: now[0])
    first = [pauses.next() for _ in range(20)]
    assert 0.05 <= first[0] <= 0.1
    assert all(1.0 <= pause <= 2.0 for pause in first[5:])
    assert len(set(first)) == 20
    pauses.connected()
    assert pauses.next() >= 1.0  # lost as soon as it was connected
    pauses.connected()
    now[0] += 60
    assert pauses.next() <= 0.1


def test_who_hears_the_catalog_is_not_told_twice() -> None:
    told: list[str] = []
    for hears_catalog in (True, False):
        changes = Listening(lambda: Script(lambda _: News()), told.extend, hears_catalog=hears_catalog)
        changes.announce([f"cat {hears_catalog}"], in_catalog=True)
        changes.announce([f"dog {hears_catalog}"])
        changes.announce([])
    assert told == ["dog True", "cat False", "dog False"]
