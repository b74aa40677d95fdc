"""The OpenAI-compatible HTTP interface of a node, and the control socket of its owner."""
