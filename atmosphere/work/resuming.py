"""A streamed answer that breaks midway goes on at another node, where the capability declares that it can."""

from __future__ import annotations

from dataclasses import replace

from atmosphere.routing.decision import Candidate, Decision
from atmosphere.work.attempts import Asked, Attempts, Task
from atmosphere.work.continuation import Said, continues
from atmosphere.work.effects import broke_midway
from atmosphere.work.execution import Resumed
from protocols.call import CallError

MAX_CONTINUATIONS = 3
"""Of one answer: what breaks that often will break again."""


class Resuming:
    """What one answer has said, and who may go on with it."""

    def __init__(self, decision: Decision, task: Task, asked: list[Asked], attempts: Attempts) -> None:
        """*asked*: who was asked so far, the last one is at work; whoever goes on is put there, to be closed."""
        self.said = Said(task.call.tool, task.call.args)
        self._decision = decision
        self._task = task
        self._asked = asked
        self._attempts = attempts

    async def __call__(self, error: CallError) -> Resumed:
        """Go on after *error*; raises it where that cannot be."""
        broken = self._asked[-1]
        await broken.aclose()
        self._attempts.failed(broken, error, self._task)
        resumption = self.said.resume("")
        others = self._others()
        if not (others and resumption and broke_midway(error)) or len(self._asked) > MAX_CONTINUATIONS:
            raise error
        rest = replace(self._task, call=replace(self._task.call, args=resumption.args))
        try:
            now = await self._attempts.begin(others, rest)
        except CallError:
            raise error from None
        self._asked.append(now)
        self._attempts.continued += 1
        marked = self.said.resume(now.candidate.node_name)
        assert now.work is not None
        assert marked is not None
        return Resumed(now.candidate, now.work, now.first, marked.mark)

    def _others(self) -> list[Candidate]:
        """Who could go on: any other node, and any other backend of the same one."""
        before = {(asked.candidate.peer, asked.candidate.card_id) for asked in self._asked}
        return [
            other
            for other in self._decision.candidates
            if (other.peer, other.card_id) not in before and continues(other.card)
        ]
