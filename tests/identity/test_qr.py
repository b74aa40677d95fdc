"""A PNG of an invite is read back by a real decoder, also from a bad photograph of it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from atmosphere.identity import Invite, parse_invite
from atmosphere.identity.invite import MAX_INVITE_BYTES
from atmosphere.identity.invite_qr import png
from tests.identity.keys import NOW, peer
from tests.identity.test_invite import ADDRESSES, node, tokens

Image = npt.NDArray[np.float64]


def full_invite() -> Invite:
    """Two addresses, one of another node and so with its peer id: close to the largest that there is."""
    return node().create_invite((ADDRESSES[0], f"/ip4/10.1.2.3/tcp/4001/p2p/{peer('other')}"), NOW, tokens)


def read_png(path: Path) -> Image:
    """Grey values of a PNG as segno writes it: 1 bit per pixel, no interlace, filters 0 and 2."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0]
        chunks[kind] = chunks.get(kind, b"") + body
        at += 12 + size
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour) == (1, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, -1)
    lines = rows[:, 1:].copy()
    for number in range(height):
        assert rows[number, 0] in (0, 2)
        if rows[number, 0] == 2:  # a difference from the line above
            lines[number] += lines[number - 1]
    return np.unpackbits(lines, axis=1)[:, :width].astype(np.float64) * 255


def photographed(
    image: Image, seed: int, *, tilt: float, turn: float, blur: int, noise: float
) -> npt.NDArray[np.uint8]:
    """*image* seen from the side (perspective *tilt*), turned by *turn* radians, out of focus, in bad light."""
    size = int(image.shape[0] * 1.5)
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) - size / 2
    depth = 1 + tilt * x / size + 0.6 * tilt * y / size
    across = (np.cos(turn) * x - np.sin(turn) * y) / depth + image.shape[1] / 2
    down = (np.sin(turn) * x + np.cos(turn) * y) / depth + image.shape[0] / 2
    padded = np.pad(image, 1, constant_values=170)  # a grey table around the paper
    columns = np.clip(across + 1, 0, padded.shape[1] - 2)
    rows = np.clip(down + 1, 0, padded.shape[0] - 2)
    left, top = columns.astype(int), rows.astype(int)
    right, below = columns - left, rows - top
    seen = (
        padded[top, left] * (1 - right) * (1 - below) + padded[top, left + 1] * right * (1 - below)
        + padded[top + 1, left] * (1 - right) * below + padded[top + 1, left + 1] * right * below
    )
    kernel = np.ones(blur) / blur
    for axis in (0, 1):
        seen = np.apply_along_axis(lambda line: np.convolve(line, kernel, mode="same"), axis, seen)
    light = 0.75 + 0.25 * x / size
    seen = 40 + 0.7 * seen * light + np.random.default_rng(seed).normal(0, noise, seen.shape)
    return np.clip(seen, 0, 255).astype(np.uint8)


def decode(image: npt.NDArray[np.uint8]) -> list[str]:
    zxingcpp = pytest.importorskip("zxingcpp")
    return [code.text for code in zxingcpp.read_barcodes(image)]


def test_the_png_is_the_invite(tmp_path: Path) -> None:
    made = full_invite()
    assert len(made.addresses) == 2
    assert 240 < len(made.envelope) <= MAX_INVITE_BYTES
    png(made, tmp_path / "invite.png")
    (text,) = decode(read_png(tmp_path / "invite.png").astype(np.uint8))
    assert parse_invite(text) == made


@pytest.mark.parametrize(("tilt", "turn", "blur", "noise"), [
    (0.0, 0.0, 5, 30.0), (0.3, 0.0, 3, 15.0), (-0.3, 0.15, 3, 15.0), (0.2, 0.5, 5, 10.0), (0.15, 3.0, 5, 20.0),
])
def test_a_bad_photograph_of_it_is_read_back(
    tmp_path: Path, tilt: float, turn: float, blur: int, noise: float
) -> None:
    made = full_invite()
    png(made, tmp_path / "invite.png")
    photo = photographed(read_png(tmp_path / "invite.png"), 1, tilt=tilt, turn=turn, blur=blur, noise=noise)
    assert photo.std() > 20
    (text,) = decode(photo)
    assert parse_invite(text) == made


def test_what_cannot_be_read_gives_no_wrong_invite(tmp_path: Path) -> None:
    png(full_invite(), tmp_path / "invite.png")
    photo = photographed(read_png(tmp_path / "invite.png"), 1, tilt=0.3, turn=0.1, blur=15, noise=60.0)
    assert decode(photo) == []
