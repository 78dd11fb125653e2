"""SparseGPT's solver: which weights of a matrix go, and what the others become to make up for them.

The matrix lies on its side, as [g, c, o]: groups of a convolution (one for a linear layer), columns of the
paper, outputs. So each column is a run of contiguous numbers. All groups are solved together.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from workers.pruning.nm import nm_keep
from workers.pruning.second_order.factor import Inverse

_STRIP = 16  # columns between which errors pass one by one: 16 rows of 4096 floats stay in the cache


def prune_to_share(weight: Tensor, inverse: Inverse, zeros: int, *, block: int) -> None:
    """Zero exactly `zeros` weights of `weight` [g, c, o] in place, move the others (Frantar, Alistarh 2023).

    Of each `block` columns those with the smallest w² / U_jj² go, U of `inverse`. The paper's code takes
    int(share · size) of each block, so that its count is approximate; here the blocks share out the exact
    count in proportion to their size. Weights that are zero stay zero and count first; where there are more
    of them than `zeros`, no other goes. Extra memory: two bytes a weight, and two blocks.
    """
    columns = weight.shape[1]
    spans = [(start, min(start + block, columns)) for start in range(0, columns, block)]
    was_zero = weight == 0
    sizes = [weight[:, start:stop].numel() for start, stop in spans]
    before = [int(was_zero[:, start:stop].sum()) for start, stop in spans]
    counts = zeros_by_block(sizes, before, zeros)
    for (start, stop), count in zip(spans, counts, strict=True):
        scores = weight[:, start:stop].square() / inverse.scale[:, start:stop, None]
        keep = _all_but_smallest(scores.masked_fill_(was_zero[:, start:stop], -1.0), count)
        _solve_block(weight, inverse.factor, keep, start, lambda _: None, strip=_STRIP)


def prune_to_pattern(weight: Tensor, inverse: Inverse, n: int, m: int, *, block: int) -> None:
    """The same, but `n` of each `m` columns stay in each row, chosen when the solver reaches them.

    `block` is rounded to a multiple of m. Weights that are zero stay zero. There must be a multiple of m
    columns.
    """
    strip = m * max(_STRIP // m, 1)
    block = strip * max(block // strip, 1)
    groups, columns, outputs = weight.shape
    was_zero = weight == 0
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        keep = torch.empty((groups, stop - start, outputs), dtype=torch.bool, device=weight.device)

        def choose(column: int, start: int = start, keep: Tensor = keep) -> None:
            if (column - start) % m:
                return
            part = weight[:, column : column + m].masked_fill(was_zero[:, column : column + m], 0.0)
            scores = part.square() / inverse.scale[:, column : column + m, None]
            flat, flat_scores = (tensor.transpose(0, 1).reshape(m, -1) for tensor in (part, scores))
            stays = nm_keep(flat, flat_scores, n, m, kind="Conv1D").view(m, groups, outputs).transpose(0, 1)
            torch.logical_and(stays, part != 0, out=keep[:, column - start : column - start + m])

        _solve_block(weight, inverse.factor, keep, start, choose, strip=strip)


def zeros_by_block(sizes: Sequence[int], before: Sequence[int], zeros: int) -> list[int]:
    """How many weights of each block are to be zero: `zeros` in all, the same share of each block.

    A block that has more already keeps them, and the others get less. No block gets more than it has.
    """
    if zeros <= sum(before):
        return list(before)
    size, floor = np.array(sizes, dtype=np.float64), np.array(before, dtype=np.float64)
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        low, high = (share, high) if np.maximum(floor, share * size).sum() < zeros else (low, share)
    wanted = np.maximum(floor, high * size) - floor
    wanted *= (zeros - sum(before)) / wanted.sum()
    upto = np.rint(np.minimum(wanted, size - floor).cumsum()).astype(int)
    upto[-1] = zeros - sum(before)
    return [old + int(new) for old, new in zip(before, np.diff(upto, prepend=0), strict=True)]


def _all_but_smallest(scores: Tensor, count: int) -> Tensor:
    """False [shape of `scores`] for the `count` smallest; of equal scores the first are False."""
    flat = scores.reshape(-1)
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    if flat.is_cpu:  # numpy takes a fifth of kthvalue's time
        cut = float(np.partition(flat.numpy(), count - 1)[count - 1])
    else:
        cut = float(flat.kthvalue(count).values)
    keep = flat >= cut
    ties = count - (flat.numel() - int(keep.sum()))
    keep[(flat == cut).nonzero().view(-1)[:ties]] = False
    return keep.view(scores.shape)


def _solve_block(
    weight: Tensor, factor: Tensor, keep: Tensor, start: int, choose: Callable[[int], None], *, strip: int
) -> None:
    """Take column by column what is not in `keep` [g, b, o] and pass its error on to all later columns.

    Errors pass at once to the columns of the same strip, then to the block, then to the rest: the same sums
    as in the paper's code, with fewer passes over memory. `choose` may fill `keep` for a column and on.
    """
    stop = start + keep.shape[1]
    errors = torch.empty_like(weight[:, start:stop])
    for first in range(start, stop, strip):
        last = min(first + strip, stop)
        for column in range(first, last):
            choose(column)
            here = weight[:, column]
            gone = here.where(~keep[:, column - start], 0.0)
            here.sub_(gone)
            error = gone.div_(factor[:, column, column, None])
            errors[:, column - start] = error
            rest = factor[:, column, column + 1 : last, None]
            weight[:, column + 1 : last].addcmul_(rest, error[:, None], value=-1)
        done = errors[:, first - start : last - start]
        weight[:, last:stop].baddbmm_(factor[:, first:last, last:stop].mT, done, alpha=-1)
    weight[:, stop:].baddbmm_(factor[:, start:stop, stop:].mT, errors, alpha=-1)
