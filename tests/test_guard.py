"""The guard against regressions decides by ratios alone."""

import attrs
import pytest
from benchmarks.guard import BOUNDS, problems
from benchmarks.lines import LINES
from benchmarks.rows import Row

BOUND = {("lone", "redis-py"): 0.5}
ROW = Row(line="lone", what="a publish", ours="9/s", peer="redis-py", theirs="10/s")


def measured(*ratios):
    return attrs.evolve(ROW, ratio=sorted(ratios)[len(ratios) // 2], ratios=ratios)


def test_what_is_fast_enough_passes():
    """Nothing is said of a ratio at or above its bound."""
    assert problems([measured(0.5, 0.6, 0.7)], BOUND) == []


def test_what_is_too_slow_is_named():
    """The text has the line, the ratio, the bound and both rates."""
    [said] = problems([measured(0.1, 0.2, 0.3)], BOUND)
    for part in ("lone", "0.20 x redis-py", "0.5 x", "9/s", "10/s"):
        assert part in said


def test_one_good_round_is_enough():
    """A machine that is busy for a moment is no regression."""
    assert problems([measured(0.1, 0.2, 0.9)], BOUND) == []


@pytest.mark.parametrize("rows", [[], [attrs.evolve(ROW, note="CheckError: lost")]])
def test_what_was_not_measured_is_a_problem(rows):
    """A line that fails, say since a message was lost, does not pass in silence."""
    [said] = problems(rows, BOUND)
    assert said.startswith("lone: not measured")


def test_bounds_name_lines_and_peers_that_exist():
    """A line that is renamed does not escape the guard."""
    known = {(line.name, one.library) for line in LINES for one in line.against}
    assert set(BOUNDS) <= known
