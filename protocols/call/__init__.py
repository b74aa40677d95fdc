"""``/atmosphere/call/1``: tool calls and trigger subscriptions between two nodes.

Light on purpose: errors, limits and values are here, the two sides in :mod:`.client` and :mod:`.server`.
"""

from protocols.call.errors import CallError, Code
from protocols.call.limits import CallLimits

__all__ = ["CallError", "CallLimits", "Code"]
