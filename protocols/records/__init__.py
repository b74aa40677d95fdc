"""Signed statements as exact bytes: envelopes, their domains, and the kinds of record that nodes exchange."""

from protocols.records.envelope import EnvelopeError, Fault, open_envelope, sign

__all__ = ["EnvelopeError", "Fault", "open_envelope", "sign"]
