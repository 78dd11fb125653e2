"""Three sessions of one backend that take turns: dense, dense again, pruned."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.benchmark import BenchmarkSpec, Comparison, Latency
from workers.benchmark.backends.backend import Backend, Feeds, Session
from workers.benchmark.sentence import sentence
from workers.benchmark.stats import judge, noise_of, speedup

SEED = 0
"""Of the order of the arms and of the bootstrap, so that a run can be followed again."""

MOST_INFERENCES = 10_000
"""In one round of one arm: more do not move its median, and their times would fill the memory."""

FEWEST_WARM = 2
"""Inferences of a fresh session that are not counted: a runtime plans its memory in the first."""


@dataclass
class Times:
    """Seconds of one inference, for one arm at one batch size."""

    wall: list[NDArray[np.float64]] = field(default_factory=list)
    """One array for each round."""
    cpu: list[float] = field(default_factory=list)
    """Process CPU time of one inference, the mean of each round."""

    def medians(self) -> NDArray[np.float64]:
        """Median latency of each round, shape [rounds]."""
        return np.array([np.median(times) for times in self.wall])

    def latency(self) -> Latency:
        """The figures of all rounds, in milliseconds."""
        samples = np.concatenate(self.wall) * 1e3
        return Latency(
            p50_ms=float(np.median(self.medians())) * 1e3,
            p90_ms=float(np.quantile(samples, 0.9)),
            p99_ms=float(np.quantile(samples, 0.99)),
            cpu_p50_ms=float(np.median(self.cpu)) * 1e3,
            samples=len(samples),
        )


@dataclass
class Arm:
    """One file, and its times by batch size."""

    model: Path
    times: dict[int, Times]

    def run(self, session: Session, feeds: Feeds, size: int, spec: BenchmarkSpec) -> None:
        """One round at one batch size: the warm-up's share, then the part that counts."""
        warm = len(list(_inferences(session, feeds, spec.warmup_seconds / spec.rounds)))
        for _ in range(FEWEST_WARM - warm):
            session.infer(feeds)
        cpu_before = time.process_time()
        wall = np.fromiter(_inferences(session, feeds, spec.round_seconds), dtype=np.float64)
        self.times[size].cpu.append((time.process_time() - cpu_before) / len(wall))
        self.times[size].wall.append(wall)


def measure(
    backend: Backend,
    dense: Path,
    pruned: Path,
    feeds: Mapping[int, Feeds],
    spec: BenchmarkSpec,
    *,
    threads: int,
    on_round: Callable[[], None],
) -> list[Comparison]:
    """Compare two files in `backend` at each batch size of `feeds`; the second dense arm is the control.

    Each round opens all sessions anew, in an order drawn for it: where a session's weights come to lie in
    memory moves its latency by some percent for as long as it lives (Mytkowicz et al. 2009, "Producing wrong
    data without doing anything obviously wrong"). With one session for all rounds, 4 of 40 comparisons of a
    small ResNet with itself were judged faster or slower; with fresh ones 0 of 40.
    """
    arms = [Arm(path, {size: Times() for size in feeds}) for path in (dense, dense, pruned)]
    order = np.random.default_rng(SEED)
    with _no_garbage_collection():
        for _ in range(spec.rounds):
            turns = [arms[index] for index in order.permutation(len(arms))]
            sessions = [backend.open(arm.model, threads=threads) for arm in turns]
            for size, inputs in feeds.items():
                for arm, session in zip(turns, sessions, strict=True):
                    arm.run(session, inputs, size, spec)
            on_round()
    return [_comparison(*(arm.times[size] for arm in arms), batch_size=size) for size in feeds]


def _inferences(session: Session, feeds: Feeds, seconds: float) -> Iterator[float]:
    """Run for so long, once at least; the seconds of each inference."""
    end = time.perf_counter() + seconds
    for _ in range(MOST_INFERENCES):
        start = time.perf_counter()
        session.infer(feeds)
        now = time.perf_counter()
        yield now - start
        if now >= end:
            return


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _comparison(dense: Times, control: Times, pruned: Times, *, batch_size: int) -> Comparison:
    measured = speedup(dense.medians(), pruned.medians(), seed=SEED)
    noise = noise_of(speedup(dense.medians(), control.medians(), seed=SEED))
    verdict = judge(measured, noise)
    return Comparison(
        batch_size=batch_size,
        dense=dense.latency(),
        pruned=pruned.latency(),
        speedup=measured.value,
        speedup_low=measured.low,
        speedup_high=measured.high,
        noise=noise,
        verdict=verdict,
        sentence=sentence(batch_size, verdict, measured, noise),
    )
