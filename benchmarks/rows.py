"""What a run comes to: rows of a table, each with a goal or without one."""

from typing import Any, Literal

import attrs


@attrs.frozen
class Goal:
    """What a ratio should be.

    Args:
        bound: The ratio.
        kind: Whether it is the least or the most.
    """

    bound: float
    kind: Literal["least", "most"] = "least"

    def is_reached(self, ratio: float) -> bool:
        """Whether a ratio reaches the goal."""
        return ratio >= self.bound if self.kind == "least" else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.kind == 'least' else '<='} {self.bound:g}"


@attrs.frozen(kw_only=True)
class Row:
    """One comparison.

    Args:
        line: The name of the line it belongs to.
        what: The work.
        ours: What we measured, with its unit.
        peer: What it is compared with.
        theirs: What that measured.
        ratio: Ours by theirs, median of the rounds; None if there is none, and `note` says why.
        ratios: Of each round.
        goal: What the ratio should be; None if it is only shown.
        note: What else there is to say.
    """

    line: str
    what: str
    ours: str = ""
    peer: str
    theirs: str = ""
    ratio: float | None = None
    ratios: tuple[float, ...] = ()
    goal: Goal | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the goal is reached, by how much it is missed."""
        if self.ratio is None:
            return "" if self.theirs else "not measured"
        if self.goal is None:
            return ""
        if self.goal.is_reached(self.ratio):
            return "reached"
        return f"missed: {self.ratio / self.goal.bound:.0%} of it"

    def as_json(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return {
            **attrs.asdict(self, filter=attrs.filters.exclude("goal")),
            "goal": None if self.goal is None else attrs.asdict(self.goal),
            "reached": self.goal.is_reached(self.ratio)
            if self.goal is not None and self.ratio is not None
            else None,
        }


def rate(messages_a_second: float) -> str:
    """Write a rate."""
    return f"{messages_a_second:,.0f}/s"
