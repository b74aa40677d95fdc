"""``/atmosphere/probe/1``: whether a third node is alive, as another one sees it."""
