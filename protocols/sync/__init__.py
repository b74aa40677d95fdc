"""``/atmosphere/sync/1``: the greeting on every connection, and what one node tells another that joins."""
