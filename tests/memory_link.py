"""A link without a supervisor: it keeps what the job says, and commits everything."""

from schemas.job import Step
from schemas.round import Checkpoint, Round
from workers.errors import Stopped
from workers.messages import DoneMessage, FailedMessage, Message


class MemoryLink:
    """`stop_after`: the number of checks after which the job is told to stop."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.steps: list[Step] = []
        self.messages: list[Message] = []
        self.commits: list[tuple[Round, Checkpoint | None]] = []
        self._left = stop_after

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def commit(self, round: Round, checkpoint: Checkpoint | None) -> None:
        self.commits.append((round, checkpoint))

    def raise_if_stopped(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Stopped("test")

    def committed(self) -> list[tuple[int, bool]]:
        """Each round's number, and whether it held."""
        return [(round.number, checkpoint is not None) for round, checkpoint in self.commits]

    def step_names(self) -> list[str]:
        return [step.name for step in self.steps]

    def end(self) -> DoneMessage | FailedMessage:
        """How the job ended."""
        last = self.messages[-1]
        assert isinstance(last, DoneMessage | FailedMessage), last
        return last
