# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""A consumer's part in one group, with those who work on it."""

from typing import TYPE_CHECKING, Self

import attrs

from .gathering import Gathering
from .intake import Intake
from .keeper import Keeper
from .membership import Membership
from .settler import Settler

if TYPE_CHECKING:
    from .case import Case


@attrs.frozen(eq=False)
class Branch:
    """A membership, those who work on it, and what is being handled."""

    membership: Membership
    settler: Settler
    gathering: Gathering
    keeper: Keeper
    intake: Intake
    dead: str
    """The dead-letter stream."""
    handling: dict[str, "Case"] = attrs.field(factory=dict)
    """By id."""

    @classmethod
    def of(cls, membership: Membership, dead: str) -> Self:
        """Return a membership with those who work on it."""
        settler = Settler(membership)
        gathering = Gathering(membership, settler)
        keeper, intake = Keeper(membership), Intake(membership, settler)
        return cls(membership, settler, gathering, keeper, intake, dead)
