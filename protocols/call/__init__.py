"""``/atmosphere/call/1``: tool calls and trigger subscriptions between two nodes."""

from protocols.call.errors import CallError, Code

__all__ = ["CallError", "Code"]
