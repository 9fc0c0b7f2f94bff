"""Arguments of public calls, checked before anything is sent."""

from typing import Any

from step_redis.errors import ConfigurationError

__all__ = ["HandlerKindError", "check_name", "check_number", "check_type", "check_whole", "shown"]

_LONGEST_SHOWN = 80
_LARGEST = 1e9


class HandlerKindError(Exception):
    """The handler of messages is no function of this flavour; no retry mends that."""


def shown(value: Any) -> str:
    """Return a wrong value for an error: what may be a message put in the wrong place is not."""
    plain = isinstance(value, int | float | str | bytes | None)
    if plain and len(text := repr(value)) <= _LONGEST_SHOWN:
        return text
    return f"a value of type {type(value).__name__}"


def check_name(argument: str, value: Any) -> None:
    """Refuse what cannot be the name of a key, a group or a consumer."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{argument} must be a str that is not empty; got {shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"{argument} is not valid Unicode: {shown(value)}") from None


def check_type(argument: str, value: Any, wanted: type) -> None:
    """Refuse what is of another type."""
    if not isinstance(value, wanted):
        raise ConfigurationError(
            f"{argument} must be {wanted.__name__}; got {type(value).__name__}"
        )


def check_whole(argument: str, value: Any, least: int, *, none: str | None = None) -> None:
    """Refuse what is no whole number of at least ``least``; ``none`` says what None would mean."""
    if value is None and none is not None:
        return
    if type(value) is not int or value < least:
        otherwise = f", or None {none}" if none is not None else ""
        raise ConfigurationError(
            f"{argument} must be a whole number of at least {least}{otherwise}; got {shown(value)}"
        )


def check_number(
    argument: str, value: Any, least: float, *, above: bool = False, none: str | None = None
) -> None:
    """Refuse what is no number of at least, or above, ``least``."""
    if value is None and none is not None:
        return
    number: Any = value if type(value) in (int, float) else -1.0
    if not least <= number < _LARGEST or (above and number == least):
        bound = "more than" if above else "at least"
        limit = f" and less than {_LARGEST:g}" if number >= _LARGEST else ""
        otherwise = f", or None {none}" if none is not None else ""
        raise ConfigurationError(
            f"{argument} must be a number of {bound} {least:g}{limit}{otherwise};"
            f" got {shown(value)}"
        )
