"""Worlds of many nodes in one process, with a virtual clock and a seed. Only the failure detector has one yet."""
