"""Redemptions and issuers' chains: as they come, and payloads that an issuer, a member or a stranger has signed."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.identity import IdentityError
    from atmosphere.identity.issuers import IssuerDirectory
    from atmosphere.identity.redemption import RedemptionSet
    from protocols.records import domains, sign
    from protocols.records.records_pb2 import Envelope
    from tests.hostile.cases_statements import USED, redemption
    from tests.hostile.house import SECOND, SECOND_NODE
    from tests.identity.keys import MESH, NOW, chain, issuer, key, member, peer, public

RECORDS = [USED, redemption("member", authority=member("member")), redemption(peer=public("other"), uses=5)]
SIGNERS = ("", "second", "member", "mallory")
STRANGERS = {"member", "mallory"}


def target(data: bytes) -> None:
    """First byte: 0 a record, 1 to 3 a payload signed by one of SIGNERS, 4 an issuer's chain."""
    way, body = data[0] % 5 if data else 0, data[1:]
    if way == 4:
        directory = IssuerDirectory(MESH)
        credential = directory.add(body, NOW)
        assert credential is None or directory.chain_of(credential.peer) == body
        assert directory.chain_of(peer("mallory")) == b"", "a stranger has become an issuer"
        return
    redemptions = RedemptionSet(MESH)
    entry = redemptions.add(sign(domains.REDEMPTION, body, key(SIGNERS[way])) if way else body, NOW)
    if entry is not None:
        assert way or body in RECORDS, "nobody signed this"
        assert SIGNERS[way] not in STRANGERS, "somebody who is no issuer has redeemed"
        assert entry.peer in redemptions.uses_of(entry.invite_id)
        assert not redemptions.lost(entry.peer), "the only one has lost"
        assert redemptions.add(entry.record, NOW) is None, "the same again is news"
    redemptions.forget_ended(2**41)
    assert not len(redemptions)


def seeds() -> list[bytes]:
    payloads = [Envelope.FromString(record).payload for record in RECORDS]
    chains = [SECOND, SECOND_NODE.chain, chain(issuer("owner", "plain"), issuer("plain", "mallory", ("*",)))[:-9]]
    return [
        *(b"\0" + record for record in RECORDS), *(b"\4" + certificate for certificate in chains),
        *(bytes([way]) + payload for way in (1, 2, 3) for payload in payloads),
    ]


if __name__ == "__main__":
    fuzz(target, seeds(), (IdentityError,), max_len=1400)
