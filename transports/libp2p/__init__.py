"""py-libp2p, corrected: small subclasses of its swarm, host, muxer, pubsub and router, one concern per file.

Every override says what is wrong in the pinned version, how that was shown, and when it can go.
"""
