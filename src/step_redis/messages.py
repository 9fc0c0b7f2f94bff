"""What a reader gets: received messages."""

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import attrs

from step_redis.codec import Codec

__all__ = ["Delivery", "ReceivedMessage", "new_messages", "received_messages"]


class ReceivedMessage(TypedDict):
    """A message as ``receive_message`` returns it: a dict with these keys."""

    id: str
    """The entry's id, as in ``"1700000000000-0"``; acknowledge with it."""
    data: dict[Any, Any]
    """The message that was published; the raw fields, as bytes, if ``error`` is set."""
    headers: dict[str, str]
    """The headers it was published with."""
    stream: str
    """The stream it was read from."""
    delivery_count: int
    """How many times it was delivered within the group, this time included."""
    error: str | None
    """None, or why the entry could not be decoded."""


@attrs.define(eq=False)
class Delivery:
    """An entry that the server delivered to a consumer, not decoded yet.

    Nobody changes it; it is not frozen because one is made for each message, and a frozen one
    takes three times as long to make.
    """

    id: str
    fields: list[bytes] = attrs.field(repr=False)
    count: int
    lost: int = 0
    """How many of its deliveries ended with their consumer's death; these two are known to
    consumers with leases only."""
    interrupted: int = 0
    """How many ended because their consumer was stopped."""

    @property
    def failures(self) -> int:
        """How many of its deliveries failed, if this one does."""
        return max(1, self.count - self.lost - self.interrupted)


def new_messages(
    stream: str, entries: Iterable[tuple[bytes, list[bytes] | None]], codec: Codec
) -> list[ReceivedMessage]:
    """Return what the user gets for entries, by id and fields, delivered for the first time."""
    read = codec.read
    messages: list[ReceivedMessage] = []
    for id_, fields in entries:
        data, headers, error = read(fields or ())
        messages.append(
            {
                "id": id_.decode(),
                "data": data,
                "headers": headers,
                "stream": stream,
                "delivery_count": 1,
                "error": error,
            }
        )
    return messages


def received_messages(
    stream: str, deliveries: Sequence[Delivery], codec: Codec
) -> list[ReceivedMessage]:
    """Return what the user gets for deliveries."""
    entries = ((delivery.id.encode(), delivery.fields) for delivery in deliveries)
    messages = new_messages(stream, entries, codec)
    for message, delivery in zip(messages, deliveries, strict=True):
        message["delivery_count"] = delivery.count
    return messages
