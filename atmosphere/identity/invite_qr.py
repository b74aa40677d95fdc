"""An invite as a QR code: in the terminal, and as an SVG or PNG file."""

from __future__ import annotations

import io
from pathlib import Path

import segno

from atmosphere.identity.invite import Invite


def _code(invite: Invite) -> segno.QRCode:
    # Level M survives scratches and a phone at an angle; alphanumeric because the text has only A-Z and 0-9.
    return segno.make_qr(invite.text, error="m", mode="alphanumeric", boost_error=False)


def terminal(invite: Invite) -> str:
    """Lines of half blocks, for a terminal with dark or light background alike (the quiet zone is drawn)."""
    out = io.StringIO()
    _code(invite).terminal(out, compact=True, border=4)
    return out.getvalue()


def svg(invite: Invite) -> str:
    """A stand-alone SVG document, black on white."""
    out = io.BytesIO()
    _code(invite).save(out, kind="svg", scale=6, border=4, light="white")
    return out.getvalue().decode()


def png(invite: Invite, path: Path) -> None:
    """Write a PNG file, black on white, six pixels a module: sharp on a screen and on paper. Raises OSError."""
    out = io.BytesIO()
    _code(invite).save(out, kind="png", scale=6, border=4, light="white")
    path.write_bytes(out.getvalue())
