"""The node: one nursery, the parts and how they are wired."""

from atmosphere.node.node import Node, Status
from atmosphere.node.start import host_config, open_node

__all__ = ["Node", "Status", "host_config", "open_node"]
