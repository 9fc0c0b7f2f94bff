# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""Streams trimmed to a retention, at once or a little with each publish."""

import logging

import attrs

from step_redis.errors import StepRedisError
from step_redis.recent import Recent
from step_redis.retention import HeldBack, Page, Retention, Trimmed, read_page, trim

from .connections import Connections

_EVERY = 100
"""After how many messages published a page is looked at."""

_REMEMBERED_SECONDS = 900
"""For how long it is remembered how far the looking through a stream has come."""

_START = ("-", 0)


@attrs.define
class _Progress:
    """How far the looking through a stream has come."""

    published: int = _EVERY
    at: tuple[str, int] = _START
    """Where the next page begins, and how many entries before it were kept."""


class Trimmer:
    """Trims streams for one stream object.

    Args:
        connections: What to send on.
        logger: Where to tell that a stream cannot be trimmed.
        retention: What streams are trimmed to that are published to; None for nothing.
    """

    def __init__(
        self, connections: Connections, logger: logging.Logger, retention: Retention | None
    ) -> None:
        self._connections = connections
        self._logger = logger
        self._retention = retention
        self._progress: Recent[_Progress] = Recent(lambda _: _Progress(), _REMEMBERED_SECONDS)

    @property
    def is_on(self) -> bool:
        """Whether streams that are published to are trimmed."""
        return self._retention is not None

    async def trim(self, stream: str, retention: Retention) -> Trimmed:
        """Look through all that is beyond the limits, and remove what may go."""
        removed, (start, kept) = 0, _START
        held_back: dict[str, HeldBack] = {}
        while start:
            page = await self._page(stream, retention, start, kept)
            removed, kept, start = removed + page.removed, kept + page.kept, page.next_start
            for held in page.held_back:
                held_back.setdefault(held.group, held)
        return Trimmed(removed=removed, held_back=list(held_back.values()))

    async def before_publishing(self, stream: str, count: int) -> None:
        """Look at the next page of a stream now and then; a failure does not hinder publishing."""
        if self._retention is None:
            return
        progress = self._progress.of(stream)
        progress.published += count
        if progress.published < _EVERY:
            return
        # Others who publish meanwhile need not.
        progress.published = 0
        at = progress.at
        try:
            page = await self._page(stream, self._retention, *at)
        except StepRedisError as error:
            self._logger.warning("stream %r was not trimmed to its retention: %s", stream, error)
            return
        # Others may have come further meanwhile.
        if progress.at == at:
            progress.at = (page.next_start, at[1] + page.kept) if page.next_start else _START

    async def _page(self, stream: str, retention: Retention, start: str, kept: int) -> Page:
        # Apart: a batch holds one of the connections for commands meanwhile, maybe the only one.
        reply = await self._connections.run(
            trim(stream, retention, start, kept),
            effect="entries may have been removed",
            apart=True,
        )
        return read_page(reply)
