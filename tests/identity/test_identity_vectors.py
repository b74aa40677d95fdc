"""``vectors.json``: chains, invites and revocations that another implementation must read, or refuse, as we do.

The file is ``{"mesh", "audience", "now", "chains", "invites", "revocations"}``: the owner's public key, the public key
of the peer that shows the chains, Unix seconds. Every case has *name*, *hex*, and either *fields* or *reason*.
``python -m tests.identity.test_identity_vectors`` writes it from the cases of the tests; the test compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atmosphere.identity import IdentityError, Target, open_revocation, revoke, verify_chain
from atmosphere.identity.invite import open_invite
from tests.identity.keys import DAY, MESH, NOW, chain, deep, issuer, key, link, member, peer, public
from tests.identity.test_chain import HOSTILE as HOSTILE_CHAINS
from tests.identity.test_invite import ADDRESSES, node, tokens
from tests.identity.test_invite import HOSTILE as HOSTILE_INVITES

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


def case(read: Callable[[bytes], dict[str, Any]], name: str, data: bytes) -> dict[str, Any]:
    try:
        return {"name": name, "hex": data.hex(), "fields": read(data)}
    except IdentityError as error:
        return {"name": name, "hex": data.hex(), "reason": str(error.reason)}


def build() -> dict[str, Any]:
    issuer_chain = chain(issuer("owner", "issuer"))
    by_owner = revoke(Target.PEER, public("x"), key("owner"), MESH, NOW, reason="lost")
    foreign_mesh = public("other owner")
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
    return {
        "mesh": MESH.hex(), "audience": public("member").hex(), "now": NOW,
        "chains": [case(read_chain, name, data) for name, data in chains.items()],
        "invites": [case(read_invite, name, data) for name, data in invites.items()],
        "revocations": [case(read_revocation, name, data) for name, data in revocations.items()],
    }


def test_the_file_says_what_we_do() -> None:
    written = json.loads(FILE.read_text())
    for kind, read in (("chains", read_chain), ("invites", read_invite), ("revocations", read_revocation)):
        for expected in written[kind]:
            assert case(read, expected["name"], bytes.fromhex(expected["hex"])) == expected
    assert written == build(), "run `python -m tests.identity.test_identity_vectors` and look at what changed"


if __name__ == "__main__":
    FILE.write_text(json.dumps(build(), indent=1) + "\n")
