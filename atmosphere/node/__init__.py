"""The node: one nursery, the parts and how they are wired."""

from atmosphere.node.node import Node, Parts, Status
from atmosphere.node.start import host_config, open_node, run_node

__all__ = ["Node", "Parts", "Status", "host_config", "open_node", "run_node"]
