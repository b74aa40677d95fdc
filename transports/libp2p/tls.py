"""TLS with a certificate that every implementation can read.

Wrong in 0.8.1: the certificate has two more extensions in front of libp2p's own. The specification asks for that one
alone; js-libp2p reads the first and refuses (shown by tests/interop). Its validity comes from the wall clock, so a
machine whose clock is not set yet makes one that others refuse. Delete when the library's template has no extensions
and a fixed start.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import NameOID
from libp2p.crypto.keys import KeyPair
from libp2p.security.tls.transport import IdentityConfig, TLSTransport

VALID_FROM = datetime(2020, 1, 1, tzinfo=UTC)
VALID_UNTIL = datetime(2120, 1, 1, tzinfo=UTC)
"""The certificate lives as long as the process and trust does not come from it, so its dates carry no meaning."""


def make_tls(key_pair: KeyPair) -> TLSTransport:
    """The library's TLS 1.3 with a certificate of our own for the identity *key_pair*."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "libp2p")])
    template = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(VALID_UNTIL)
        .subject_name(name)
        .issuer_name(name)
    )
    return TLSTransport(key_pair, identity_config=IdentityConfig(cert_template=template))
