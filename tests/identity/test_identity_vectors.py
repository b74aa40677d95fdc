"""``vectors.json``: what identity signs, which another implementation must read, or refuse, as we do.

The file is ``{"mesh", "audience", "now", "chains", "issuers", "invites", "revocations", "redemptions", "merge"}``: the
owner's public key, the public key of the peer that shows the chains, Unix seconds, the cases. Every case has *name*,
*hex*, and either *fields* or *reason*; those of ``merge`` are sets of redemptions with which keys used each invite and
which lost.
``python -m tests.identity.test_identity_vectors`` writes it from the cases of the tests; the test compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from atmosphere.identity import (
    IdentityError,
    RedemptionSet,
    RevocationSet,
    Target,
    open_redemption,
    open_revocation,
    revoke,
    verify_chain,
    verify_issuer,
)
from atmosphere.identity.invite import open_invite
from tests.identity.keys import DAY, MESH, NOW, chain, deep, issuer, key, link, member, peer, public
from tests.identity.mesh import invite, second
from tests.identity.test_chain import HOSTILE as HOSTILE_CHAINS
from tests.identity.test_invite import ADDRESSES, node, tokens
from tests.identity.test_invite import HOSTILE as HOSTILE_INVITES
from tests.identity.test_redemption import HOSTILE as HOSTILE_REDEMPTIONS

FILE = Path(__file__).with_name("vectors.json")


def read_chain(data: bytes) -> dict[str, Any]:
    said = verify_chain(data, MESH, peer("member"), NOW)
    return {
        "peer": said.peer.public_key.hex(), "name": said.name, "scopes": list(said.scopes), "serial": said.serial.hex(),
        "not_before": said.not_before, "not_after": said.not_after, "digest": said.digest.hex(), "level": said.level,
        "issuers": [key.public_key.hex() for key in said.issuers],
    }


def read_invite(data: bytes) -> dict[str, Any]:
    said = open_invite(data)
    return {
        "mesh": said.mesh.hex(), "mesh_name": said.mesh_name, "inviter": said.inviter.public_key.hex(),
        "addresses": list(said.addresses), "expires": said.expires, "uses": said.uses, "scopes": list(said.scopes),
        "approval": said.approval, "offline": said.offline, "id": said.id.hex(), "text": said.text,
    }


def read_revocation(data: bytes) -> dict[str, Any]:
    said = open_revocation(data, MESH, NOW)
    return {
        "kind": said.kind.name.lower(), "target": said.target.hex(), "at": said.at, "until": said.until,
        "reason": said.reason, "level": said.level, "signer": said.signer.public_key.hex(), "digest": said.digest.hex(),
    }


def read_issuer(data: bytes) -> dict[str, Any]:
    said = verify_issuer(data, MESH, NOW)
    return {
        "peer": said.peer.public_key.hex(), "name": said.name, "scopes": list(said.scopes), "level": said.level,
        "not_before": said.not_before, "not_after": said.not_after, "digest": said.digest.hex(),
    }


def read_redemption(data: bytes) -> dict[str, Any]:
    said = open_redemption(data, MESH, NOW)
    return {
        "invite": said.invite_id.hex(), "peer": said.peer.public_key.hex(), "at_ms": said.at_ms, "uses": said.uses,
        "expires": said.expires, "signer": said.signer.public_key.hex(), "digest": said.digest.hex(),
    }


READERS = {
    "chains": read_chain, "issuers": read_issuer, "invites": read_invite, "revocations": read_revocation,
    "redemptions": read_redemption,
}


def merged(name: str, records: Sequence[bytes], revocations: Sequence[bytes] = ()) -> dict[str, Any]:
    revoked = RevocationSet(MESH)
    revoked.merge(revocations, NOW)
    known = RedemptionSet(MESH, revoked)
    known.merge(records, NOW)
    peers = sorted({entry.peer for entry in known})
    return {
        "name": name, "redemptions": [record.hex() for record in records],
        "revocations": [record.hex() for record in revocations], "digest": known.digest.hex(),
        "uses": {
            entry.invite_id.hex(): sorted(peer.public_key.hex() for peer in known.uses_of(entry.invite_id))
            for entry in known
        },
        "lost": [peer.public_key.hex() for peer in peers if known.lost(peer)],
    }


def case(read: Callable[[bytes], dict[str, Any]], name: str, data: bytes) -> dict[str, Any]:
    try:
        return {"name": name, "hex": data.hex(), "fields": read(data)}
    except IdentityError as error:
        return {"name": name, "hex": data.hex(), "reason": str(error.reason)}


def build() -> dict[str, Any]:
    issuer_chain = chain(issuer("owner", "issuer"))
    by_owner = revoke(Target.PEER, public("x"), key("owner"), MESH, NOW, reason="lost")
    foreign_mesh = public("other owner")
    first, one = node(), invite()
    chains = {
        "one link": chain(link("owner", "member")), "two links": member(), "three links": deep(),
        **{name: data for name, (data, _) in HOSTILE_CHAINS.items() if len(data) < 2000},
    }
    invites = {
        "two addresses": node().create_invite(ADDRESSES, NOW, tokens).envelope,
        "many uses, with approval": node().create_invite(ADDRESSES[:1], NOW, tokens, uses=9, approval=True).envelope,
        "offline": node().create_offline_invite(ADDRESSES[:1], NOW, tokens).envelope,
        **{name: data for name, (data, _) in HOSTILE_INVITES.items()},
    }
    revocations = {
        "peer, by the owner": by_owner,
        "membership": revoke(Target.MEMBERSHIP, b"s" * 16, key("owner"), MESH, NOW, until=NOW + DAY),
        "issuer, by an issuer": revoke(Target.ISSUER, public("sub"), key("issuer"), MESH, NOW, authority=issuer_chain),
        "of another mesh": revoke(Target.PEER, public("x"), key("other owner"), foreign_mesh, NOW),
        "from the future": revoke(Target.PEER, public("x"), key("owner"), MESH, NOW + DAY),
        "truncated": by_owner[:-1],
        "changed": by_owner[:-1] + bytes([by_owner[-1] ^ 1]),
    }
    issuers = {
        "by the owner": issuer_chain, "by an issuer": second().issuer_chain, "a membership": member(),
        "by a member": chain(link("owner", "x"), issuer("x", "y", ends=NOW + DAY)),
    }
    early, late = first.redeem_record(one, peer("a"), NOW + 1), second().redeem_record(one, peer("b"), NOW + 2)
    redemptions = {
        "by the first issuer": early, "by an issuer below": late,
        **{name: data for name, (data, _) in HOSTILE_REDEMPTIONS.items()},
    }
    return {
        "mesh": MESH.hex(), "audience": public("member").hex(), "now": NOW,
        **{
            kind: [case(READERS[kind], name, data) for name, data in cases.items()]
            for kind, cases in (
                ("chains", chains), ("issuers", issuers), ("invites", invites), ("revocations", revocations),
                ("redemptions", redemptions),
            )
        },
        "merge": [
            merged("one use, two keys", [early, late]),
            merged("the same key at two issuers", [early, second().redeem_record(one, peer("a"), NOW + 2)]),
            merged("at the same time: the smaller peer id", [
                first.redeem_record(one, peer("a"), NOW), second().redeem_record(one, peer("b"), NOW)]),
            merged("lost once, won once", [early, late, first.redeem_record(invite(number=1), peer("b"), NOW)]),
            merged("the winner's issuer was struck", [second().redeem_record(one, peer("c"), NOW), early], [
                revoke(Target.ISSUER, public("second"), key("owner"), MESH, NOW)]),
        ],
    }


def test_the_file_says_what_we_do() -> None:
    written = json.loads(FILE.read_text())
    for kind, read in READERS.items():
        for expected in written[kind]:
            assert case(read, expected["name"], bytes.fromhex(expected["hex"])) == expected
    assert written == build(), "run `python -m tests.identity.test_identity_vectors` and look at what changed"


if __name__ == "__main__":
    FILE.write_text(json.dumps(build(), indent=1) + "\n")
