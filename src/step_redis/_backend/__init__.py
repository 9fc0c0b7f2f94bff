"""The only code that differs between the flavours, by hand: `aio` and `threads`, of one shape."""
