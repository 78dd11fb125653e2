"""What a child process is told through its environment."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class ChildSettings:
    """Set by the supervisor."""

    messages_fd: int
    parent: int

    @classmethod
    def read(cls) -> "ChildSettings":
        """From `SECATEUR_CHILD_…`."""
        return cls(
            messages_fd=int(os.environ["SECATEUR_CHILD_MESSAGES_FD"]),
            parent=int(os.environ["SECATEUR_CHILD_PARENT"]),
        )
