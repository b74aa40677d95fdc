"""Work on other nodes, over ``/atmosphere/call/1``."""

from __future__ import annotations

from atmosphere.capabilities.backend import ToolCall
from atmosphere.env import Env
from atmosphere.mesh.table import GradientTable
from atmosphere.routing.decision import Candidate
from atmosphere.work.pieces import PieceReader
from protocols.call.client import CallClient
from protocols.call.messages import Load
from protocols.call.outgoing import OutgoingCall


class RemoteWork:
    """A call that runs on another node."""

    def __init__(self, call: OutgoingCall) -> None:
        self._call = call
        self._pieces = PieceReader(call)

    async def next_piece(self) -> bytes | None:
        return await self._pieces.next_piece()

    async def result(self) -> bytes:
        return await self._call.result()

    async def aclose(self) -> None:
        await self._call.__aexit__(None, None, None)


class MeshCalls:
    """Starts calls on other nodes and takes in the load figures that come back with them."""

    def __init__(self, client: CallClient, table: GradientTable, env: Env) -> None:
        self._client = client
        self._table = table
        self._env = env

    async def start(self, candidate: Candidate, call: ToolCall) -> RemoteWork:
        """Begin *call* on the candidate's node. Raises CallError when it could not be sent."""

        def on_load(load: Load) -> None:
            self._table.load(candidate.peer, load.permille, load.queue, self._env.monotonic())

        outgoing = self._client.call(
            candidate.peer,
            candidate.card_id,
            call.tool,
            call.args,
            deadline_s=None if call.deadline is None else max(0.001, call.deadline - self._env.monotonic()),
            trace_id=call.trace_id,
            idempotency_key=call.idempotency_key,
            on_load=on_load,
        )
        await outgoing.__aenter__()
        return RemoteWork(outgoing)


