"""Seeds, and the settings under which the same seed gives the same weights."""

import os
import random

import numpy as np
import torch


def seed_everything(seed: int, *, number: int) -> None:
    """Seed torch (all devices), numpy and random for round `number`, whatever ran before it."""
    mixed = round_seed(seed, number=number)
    torch.manual_seed(mixed)
    np.random.seed(mixed % 2**32)  # transforms of libraries may draw from the global state
    random.seed(mixed)


def round_seed(seed: int, *, number: int, epoch: int = 0) -> int:
    """One 64-bit seed out of a job's seed, a round and an epoch (numpy's SeedSequence mixes them)."""
    return int(np.random.SeedSequence([seed, number, epoch]).generate_state(1, np.uint64)[0])


def make_deterministic(*, threads: int) -> None:
    """Choose kernels whose result does not depend on timing, and fix the threads that sums are split over."""
    # https://docs.nvidia.com/cuda/cublas/#results-reproducibility: read when CUDA starts
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Some CUDA kernels (adaptive pooling backward) have no deterministic form: they warn, the job goes on.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # A debugging aid, on by default, that fills every new buffer.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.set_num_threads(threads)
