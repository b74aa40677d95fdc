"""Worlds of many nodes in one process. None is built yet."""
