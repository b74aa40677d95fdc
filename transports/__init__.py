"""How bytes move between nodes: the libp2p host, the LAN, and in-memory twins."""
