"""Keys, memberships, invites, revocations: who belongs to a mesh and what they may do. Pure."""

from atmosphere.identity.approvals import Approval, Approvals, JoinRequest
from atmosphere.identity.chain import ChainCache, Credential, Membership, open_chain, verify_chain, verify_issuer
from atmosphere.identity.enrolment import Enrolment
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.explain import Check, explain_chain
from atmosphere.identity.home import HomeError, Keyring
from atmosphere.identity.identity import Identity, accept_enrolment, enrol_offline
from atmosphere.identity.invite import Invite, parse_invite
from atmosphere.identity.invite_book import InviteBook
from atmosphere.identity.issuers import IssuerDirectory
from atmosphere.identity.memory_home import MemoryKeyring
from atmosphere.identity.redemption import Redemption, RedemptionSet, open_redemption, redeem_record
from atmosphere.identity.revocation import Revocation, RevocationSet, Target, open_revocation, revoke

__all__ = [
    "Approval", "Approvals", "ChainCache", "Check", "Credential", "Enrolment", "HomeError", "Identity",
    "IdentityError", "Invite", "InviteBook", "IssuerDirectory", "JoinRequest", "Keyring", "Membership",
    "MemoryKeyring", "Reason", "Redemption", "RedemptionSet", "Revocation", "RevocationSet", "Target",
    "accept_enrolment", "enrol_offline", "explain_chain", "open_chain", "open_redemption", "open_revocation",
    "parse_invite", "redeem_record", "revoke", "verify_chain", "verify_issuer",
]
