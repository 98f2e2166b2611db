"""A ratio is only as good as the way it is taken: in turn, side by side, without the first run."""

import numpy as np
import pytest

from benchmarks.pairs import Clock, Comparison, Pair, Work, compare


class Ticking:
    """A clock that work moves on by hand, and a record of who ran."""

    def __init__(self) -> None:
        self.time = 0.0
        self.ran: list[str] = []

    def now(self) -> float:
        return self.time

    def work(self, name: str, seconds: list[float], units: float = 1) -> Work:
        """Takes the given seconds, run after run."""

        def run() -> None:
            self.ran.append(name)
            self.time += seconds[self.ran.count(name) - 1]

        return Work(run, units)


def test_each_goes_first_in_every_other_round_and_the_first_run_does_not_count() -> None:
    """Whoever always came first would meet the cold caches, and compilation would count as work."""
    ticking = Ticking()
    ours, theirs = ticking.work("ours", [100, 1, 1, 1]), ticking.work("theirs", [100, 4, 5, 6])
    (found,) = compare([Pair("theirs", "runs", ours, theirs)], 3, Clock("ticks", ticking.now))
    assert ticking.ran == ["ours", "theirs", *("ours", "theirs"), *("theirs", "ours"), *("ours", "theirs")]
    assert found.ratio == 5
    assert found.clock == "ticks"


def test_several_clocks_time_the_same_run() -> None:
    """Wall clock and CPU time would be of different moments, and take twice as long to measure."""
    ticking = Ticking()
    ours, theirs = ticking.work("ours", [100, 1, 1]), ticking.work("theirs", [100, 4, 4])
    clocks = (Clock("ticks", ticking.now), Clock("double", lambda: 2 * ticking.now()))
    ticks, double = compare([Pair("theirs", "runs", ours, theirs)], 2, *clocks)
    assert (ticks.name, double.name) == ("theirs, ticks", "theirs, double")
    assert (ticks.clock, double.clock) == ("ticks", "double")
    assert (ticks.ours, double.ours) == (1, 0.5)
    assert ticking.ran.count("ours") == 3


def test_what_is_warm_is_not_run_once_more() -> None:
    """A reference that needs minutes would take them twice."""
    ticking = Ticking()
    ours, theirs = ticking.work("ours", [1]), ticking.work("theirs", [2])
    compare([Pair("theirs", "runs", ours, theirs)], 1, Clock("ticks", ticking.now), warm_up=False)
    assert ticking.ran == ["ours", "theirs"]


def test_pairs_take_turns_in_every_round() -> None:
    """Of two ratios, one would be from a quiet moment of the machine and one from a busy one."""
    ticking = Ticking()
    pairs = [Pair(name, "runs", ticking.work(name, [1] * 4), ticking.work(name, [1] * 4)) for name in "ab"]
    compare(pairs, 2, Clock("ticks", ticking.now), warm_up=False)
    assert ticking.ran == list("aabb") * 2


def test_rates_are_per_unit() -> None:
    """A slow reference may do less work: what counts is a unit of it."""
    ticking = Ticking()
    ours, theirs = ticking.work("ours", [2.0], units=100), ticking.work("theirs", [5.0], units=10)
    pair = Pair("theirs", "files", ours, theirs)
    (found,) = compare([pair], 1, Clock("ticks", ticking.now), warm_up=False)
    assert (found.ours, found.reference, found.ratio) == (50, 2, 25)


def test_preparation_is_not_timed() -> None:
    """Removing the last run's files would count as writing."""
    ticking = Ticking()

    def clear() -> None:
        ticking.time += 1000

    work = Work(ticking.work("ours", [3.0]).run, 1, clear)
    assert work.seconds(Clock("ticks", ticking.now)) == 3


def test_a_disturbed_round_does_not_decide() -> None:
    """On a machine that others use, one round in five is worth nothing."""
    ours = np.array([10, 10, 10, 10, 1.0])
    found = Comparison("theirs", "runs", "CPU", ours, np.ones(5))
    assert found.ratio == 10
    assert found.middle_half == pytest.approx((10, 10))
    assert found.of_the_best == 10


def test_the_ratio_is_taken_pair_by_pair() -> None:
    """A machine that turns twice as slow half-way changes both rates and no ratio."""
    speed = np.array([1, 1, 0.5, 0.5])
    found = Comparison("theirs", "runs", "CPU", 30 * speed, 10 * speed)
    assert found.middle_half == pytest.approx((3, 3))
