"""The wire: one folder per protocol, nothing of the node in them."""
