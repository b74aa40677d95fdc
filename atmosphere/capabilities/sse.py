"""Server-sent events, the receiving side: bytes in, the data of whole events out.

Follows the HTML standard's event-stream parsing: lines end with LF, CRLF or CR; an empty line ends an event; the
``data`` lines of one event are joined with LF; comments and other fields are skipped; an event that the stream's end
cuts off is not delivered.
"""

from __future__ import annotations

EVENT_MAX_BYTES = 8 * 1024 * 1024  # an image in base64 fits; a server that never ends its line does not fill the memory


class SseError(Exception):
    """The stream is not something that we can read on; the message says why."""


class SseSplitter:
    """Cuts a stream of bytes into the data of its events, wherever the chunks happen to be cut.

    Costs one split and one comparison per line; a chunk without a line end is only kept, not searched again.
    """

    def __init__(self, limit: int = EVENT_MAX_BYTES) -> None:
        self._limit = limit
        self._line: list[bytes] = []   # pieces of a line whose end has not come
        self._data: list[bytes] = []   # data lines of an event whose end has not come
        self._held = 0                 # bytes in the two
        self._after_cr = False         # the last byte was CR: a LF that follows belongs to it
        self._start = True

    def __repr__(self) -> str:
        return f"<SseSplitter {self._held} bytes held>"

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that *chunk* completes. Raises :class:`SseError` past the size limit."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        if not chunk:
            return []
        last = chunk[-1]
        whole = last in (0x0A, 0x0D)
        self._after_cr = last == 0x0D
        if not whole and b"\n" not in chunk and b"\r" not in chunk:
            self._line.append(chunk)
            self._hold(len(chunk))
            return []
        if self._line:
            self._held -= sum(map(len, self._line))
            chunk = b"".join((*self._line, chunk))
            self._line.clear()
        lines = chunk.splitlines()  # for bytes: LF, CR and CRLF, nothing else
        if not whole:
            rest = lines.pop()
            self._line.append(rest)
            self._hold(len(rest))
        if self._start:
            self._start = False
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        events = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append(b"\n".join(data) if len(data) > 1 else data[0])
                    self._held -= sum(map(len, data))
                    data.clear()
            elif line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                data.append(value)
                self._hold(len(value))
            elif line == b"data":
                data.append(b"")
                self._hold(0)
        return events

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > self._limit or len(self._data) > self._limit // 64:
            raise SseError(f"one event has more than {self._limit} bytes or too many lines")
