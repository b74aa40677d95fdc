"""Atmosphere: a peer-to-peer node that routes work to capability."""

__version__ = "0.1.0"
