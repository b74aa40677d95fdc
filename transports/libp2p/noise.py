"""Noise with buffered reads and whole writes.

Handshake, keys and peer verification are the library's. Wrong in 0.8.1 after the handshake (speed, not safety): a frame
costs two socket reads (2-byte length, then body), each behind a lock, and is drained through a BytesIO.
Measured together with the muxer, see yamux.py. Delete when the library reads through a buffer.
"""

from __future__ import annotations

from typing import cast

import trio
from libp2p.abc import IRawConnection, ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, NoiseTransportReadWriter
from libp2p.security.noise.transport import Transport
from libp2p.security.secure_session import SecureSession

READ_SIZE = 128 * 1024
"""Bytes asked of the socket at once: two Noise messages of the largest size."""


class NoiseSession(SecureSession):
    """An encrypted connection. One task may read and one may write at a time; the muxer keeps to that.

    A cancelled write leaves the connection unusable (the nonce has advanced), so only the muxer's writer task,
    which is cancelled together with the connection, calls it.
    """

    def __init__(self, session: SecureSession) -> None:
        super().__init__(
            local_peer=session.local_peer,
            local_private_key=session.local_private_key,
            remote_peer=session.remote_peer,
            remote_permanent_pubkey=session.remote_permanent_pubkey,
            is_initiator=session.is_initiator,
            conn=session.conn,
        )
        transport = cast(NoiseTransportReadWriter, session.conn)
        self._noise = transport.noise_state
        self._raw = cast(IRawConnection, transport.read_writer.read_write_closer)
        stream = getattr(self._raw, "stream", None)
        self._socket: trio.SocketStream | None = stream.stream if isinstance(stream, TrioTCPStream) else None
        self._encrypted = b""
        self._plain = b""

    async def read(self, n: int | None = None) -> bytes:
        """Up to *n* bytes (all of one message when None) as soon as there are any.

        Raises ConnectionClosedError at the end of the connection, anything else on a broken or forged message.
        """
        while not self._plain:
            self._plain = self._decrypt_buffered() or await self._receive()
        if n is None or n >= len(self._plain):
            data, self._plain = self._plain, b""
        else:
            data, self._plain = self._plain[:n], self._plain[n:]
        return data

    def _decrypt_buffered(self) -> bytes:
        """The plaintext of every complete message received so far."""
        encrypted, offset, messages = self._encrypted, 0, []
        while len(encrypted) - offset >= 2:
            end = offset + 2 + int.from_bytes(encrypted[offset : offset + 2], "big")
            if end > len(encrypted):
                break
            messages.append(self._noise.decrypt(encrypted[offset + 2 : end]))
            offset = end
        if offset:
            self._encrypted = encrypted[offset:]
        return messages[0] if len(messages) == 1 else b"".join(messages)

    async def _receive(self) -> bytes:
        received = await (self._raw.read(READ_SIZE) if self._socket is None else self._socket.receive_some(READ_SIZE))
        if not received:
            raise ConnectionClosedError("the peer closed the connection")
        self._encrypted = self._encrypted + received if self._encrypted else bytes(received)
        return self._decrypt_buffered()

    async def write(self, data: bytes) -> None:
        """Encrypt and send all of *data* in one call to the socket."""
        out: list[bytes] = []
        for start in range(0, len(data), MAX_PLAINTEXT_LENGTH):
            message = self._noise.encrypt(data[start : start + MAX_PLAINTEXT_LENGTH])
            out += (len(message).to_bytes(2, "big"), message)
        encrypted = b"".join(out)
        if self._socket is None:
            await self._raw.write(encrypted)
        else:
            await self._socket.send_all(encrypted)

    async def close(self) -> None:
        await self._raw.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._raw.get_remote_address()


class NoiseTransport(Transport):
    """The library's Noise XX, handing out :class:`NoiseSession`."""

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        return NoiseSession(cast(SecureSession, await super().secure_inbound(conn)))

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        return NoiseSession(cast(SecureSession, await super().secure_outbound(conn, peer_id)))
