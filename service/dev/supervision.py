"""Keep processes running: one that died is started again, after a pause that grows while it keeps dying."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.dev.process import Server, ServerError

Say = Callable[[str], None]

_LOOK_EVERY_S = 0.2
_STEADY_S = 60.0
_LONGEST_PAUSE_S = 30.0


class Stopping(Exception):
    """The whole is being stopped: nobody need wait for this process any longer."""


def pause_after(failures: int) -> float:
    """Seconds before the next start: half a second, doubled for each death in a row."""
    return float(min(_LONGEST_PAUSE_S, 0.5 * 2**failures))


@dataclass
class Part:
    """One process: how to start it, and how it does."""

    name: str
    start: Callable[[], Server]
    server: Server | None = None
    failures: int = 0
    started_at: float = 0.0
    not_before: float | None = None

    @property
    def died(self) -> bool:
        return self.server is not None and self.server.process.poll() is not None


class Supervision:
    """Parts that start in waves, are watched, and stop in reverse order. `say` hears of deaths."""

    def __init__(self, say: Say) -> None:
        self.stopping = threading.Event()
        self._waves: list[Sequence[Part]] = []
        self._say = say
        self._thread = threading.Thread(target=self._watch, name="supervision", daemon=True)

    def start_all(self, parts: Sequence[Part]) -> None:
        """Start these at the same time. Raises ServerError when one does not start."""
        self._waves.append(parts)
        with ThreadPoolExecutor(len(parts)) as pool:
            try:
                for future in [pool.submit(self._start, part) for part in parts]:
                    future.result()
            except BaseException:
                self.stopping.set()
                raise

    def watch(self) -> None:
        """From now on, restart what dies."""
        self._thread.start()

    @property
    def is_watching(self) -> bool:
        """Whether everything was started once, and what starts now starts again."""
        return self._thread.is_alive()

    def end(self, *prefixes: str) -> None:
        """Ask the processes of these names to end; they are started again."""
        for part in self.parts:
            if part.name.startswith(prefixes) and part.server is not None and not part.died:
                part.server.process.terminate()

    def stop(self) -> None:
        """End all, the last wave first and each wave at once; twice is harmless."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for wave in reversed(self._waves):
            servers = [part.server for part in wave if part.server is not None]
            for server in servers:
                if server.process.poll() is None:
                    server.process.terminate()
            for server in servers:
                server.stop()

    @property
    def parts(self) -> list[Part]:
        """All parts, in the order of their start."""
        return [part for wave in self._waves for part in wave]

    def ready_or_stopping(self, ready: Callable[[], bool]) -> Callable[[], bool]:
        """`ready`, but it raises Stopping once we stop, so that no start holds up the end."""

        def asked() -> bool:
            if self.stopping.is_set():
                raise Stopping
            return ready()

        return asked

    def _start(self, part: Part) -> None:
        part.server = part.start()
        part.started_at, part.not_before = time.monotonic(), None

    def _watch(self) -> None:
        while not self.stopping.wait(_LOOK_EVERY_S):
            for part in self.parts:
                if part.died:
                    self._revive(part)

    def _revive(self, part: Part) -> None:
        assert part.server is not None
        now = time.monotonic()
        if part.not_before is None:
            steady = now - part.started_at > _STEADY_S
            pause = pause_after(0 if steady else part.failures)
            part.failures = 1 if steady else part.failures + 1
            part.not_before = now + pause
            code = part.server.process.returncode
            self._say(f"{part.name} ended with code {code}; it is started again in {pause:.1f} s")
            part.server.stop()  # lets go of its folder
        if now < part.not_before:
            return
        try:
            self._start(part)
        except Stopping:
            return
        except ServerError as error:
            part.failures += 1
            part.not_before = time.monotonic() + pause_after(part.failures)
            self._say(f"{part.name} did not start: {error}")
        else:
            self._say(f"{part.name} runs again")
