"""Progress lines: their times and contents."""

from __future__ import annotations

import pytest

from perceiver_plugins.sdk.prediction.progress import track_progress
from perceiver_registry import progress
from perceiver_registry.progress import ProgressLines, duration


class Clock:
    """Clock with a settable time."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def seconds_of_lines(clock: Clock, total: int | None, steps: int, seconds_per_step: float, first: int = 0):
    """Map seconds after the start to the lines printed then."""
    lines, start = ProgressLines("steps", clock), clock.now
    lines.restart(first)
    found = {}
    for step in range(first + 1, first + steps + 1):
        clock.now += seconds_per_step
        if line := lines.line(step, total):
            found[clock.now - start] = line
    return found


def test_first_line_is_printed_after_some_seconds(clock):
    assert min(seconds_of_lines(clock, 1000, 100, 1.0)) == 5
    assert not seconds_of_lines(clock, 10, 10, 0.4)


def test_lines_are_printed_at_each_tenth_or_half_minute(clock):
    assert list(seconds_of_lines(clock, 100, 100, 1.0)) == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert list(seconds_of_lines(clock, 10_000, 100, 1.0)) == [5, 35, 65, 95]
    assert list(seconds_of_lines(clock, None, 70, 1.0)) == [5, 35, 65]


def test_long_tasks_print_few_lines(clock):
    lines = list(seconds_of_lines(clock, 10**9, 100_000, 10.0))
    assert 1500 < len(lines) < 3000
    assert lines[-1] - lines[-2] == 600


def test_lines_contain_progress_rate_and_remaining_time(clock):
    lines = seconds_of_lines(clock, 1000, 100, 0.5)
    assert lines[5.0] == "10/1000 (1 %), 2 steps/s, 8 min left"
    assert seconds_of_lines(clock, None, 20, 1.0)[5.0] == "5, 1 steps/s"


def test_progress_before_a_restart_is_not_part_of_the_rate(clock):
    assert seconds_of_lines(clock, 1000, 20, 1.0, first=900)[5.0] == "905/1000 (90 %), 1 steps/s, 2 min left"


def test_slow_steps_are_reported_at_intervals(clock):
    lines = ProgressLines("steps", clock)
    clock.now += 6
    assert lines.line(0, 10) is None
    clock.now += 30
    assert lines.line(0, 10) == "0/10 (0 %), 0 steps/s"


def test_time_limit_bounds_the_remaining_time(clock):
    lines = ProgressLines("steps", clock)
    clock.now += 10
    assert lines.line(10, 1000, limit=20.0) == "10/1000 (1 %), 1 steps/s, 20 s left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59, "59 s"), (61, "1 min"), (12_000, "3 h 20 min"), (190_800, "2 d 5 h")]
)
def test_durations_have_at_most_two_units(seconds, text):
    assert duration(seconds) == text


def test_progress_without_terminal_is_printed_to_stderr(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_AFTER", 0.0)
    assert list(track_progress("abc", 3, "Predicting")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert captured.err.startswith("Predicting: 1/3 (33 %), ")
    assert not captured.out
