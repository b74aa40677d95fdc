"""Revocations: as they come, and payloads that the owner, an admin or a stranger has signed whatever they say."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.identity import IdentityError, RevocationSet
    from protocols.records import domains, sign
    from protocols.records.records_pb2 import Envelope
    from tests.hostile.cases_statements import ADMIN, STRIKE, statement
    from tests.identity.keys import MESH, NOW, key, public

RECORDS = [STRIKE, statement("admin", authority=ADMIN), statement(kind=1, target=b"s" * 16, until=NOW + 60)]
SIGNERS = ("", "owner", "admin", "mallory")


def target(data: bytes) -> None:
    """First byte: 0 a record, 1 to 3 a payload signed by one of SIGNERS."""
    way, body = data[0] % 4 if data else 0, data[1:]
    record = sign(domains.REVOCATION, body, key(SIGNERS[way])) if way else body
    revoked = RevocationSet(MESH)
    entry = revoked.add(record, NOW)
    if entry is not None:
        assert way or body in RECORDS, "nobody signed this"
        assert SIGNERS[way] != "mallory", "a stranger strikes"
        assert entry.target != MESH, "the owner is struck"
        assert way != 2 or entry.target != public("issuer"), "the issuer above is struck"
        assert revoked.add(record, NOW) is None, "the same again is news"
    assert len(revoked) == (entry is not None)


def seeds() -> list[bytes]:
    payloads = [Envelope.FromString(record).payload for record in RECORDS]
    return [b"\0" + record for record in RECORDS] + [bytes([way]) + p for way in (1, 2, 3) for p in payloads]


if __name__ == "__main__":
    fuzz(target, seeds(), (IdentityError,), max_len=3000)
