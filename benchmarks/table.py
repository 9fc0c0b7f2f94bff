"""The results as text."""

from collections.abc import Iterable, Sequence

from .rows import Row

_HEADS = ("work", "step_redis", "against", "theirs", "ratio", "rounds", "goal", "result")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table that Markdown shows as one."""
    cells = [_HEADS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(line, widths) for line in cells]
    rule = "|".join("-" * (width + 2) for width in widths)
    notes = dict.fromkeys(f"{row.line}: {row.note}" for row in rows if row.note)
    return "\n".join([lines[0], f"|{rule}|", *lines[1:], *(f"\n{note}" for note in notes)])


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    spread = f"{min(row.ratios):.2f}-{max(row.ratios):.2f}" if row.ratios else ""
    goal = "" if row.goal is None else str(row.goal)
    return row.what, row.ours, row.peer, row.theirs, ratio, spread, goal, row.verdict


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
