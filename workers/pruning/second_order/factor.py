"""The factor of an inverse Hessian that SparseGPT walks along, damped as far as it must be."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.errors import ModelError

_LEAF = 128  # columns that are inverted without splitting
_MOST_DAMP = 1.0


@dataclass(frozen=True, eq=False)
class Inverse:
    """Of one matrix of weights: U [g, c, c], upper triangular with H⁻¹ = Uᵀ U, and U_jj² [g, c].

    The scale of a column that no sample has fed is infinite: its weights count nothing.
    """

    factor: Tensor
    scale: Tensor


def invert(hessian: Tensor, damp: float, *, name: str) -> tuple[Inverse, list[str]]:
    """The inverse of H + λ I for `hessian` [g, c, c], and notes. λ is `damp` times the mean of its diagonal.

    Only the upper triangle is read. A column without input gets the mean as its diagonal. Where 32 bits fail,
    64 are tried, then tenfold `damp`, up to 1, and a note says so. Raises ModelError where even that fails,
    or the Hessian is not finite.

    One Cholesky factorisation of the Hessian with its columns reversed, and its inverse in place, replace the
    three factorisations of the paper's code: c³ floating-point operations for 4/3 c³.
    """
    diagonal = hessian.diagonal(dim1=-2, dim2=-1).clone()
    if not bool(diagonal.isfinite().all()):
        raise ModelError(
            f"the inputs of layer '{name}' hold NaN or infinity, or overflow: nothing to weigh by"
        )
    dead = diagonal <= 0
    mean = diagonal.mean(dim=-1, keepdim=True)
    mean = mean.where(mean > 0, 1.0)
    for dtype, tried in _attempts(damp):
        damped = hessian.flip(-2, -1).to(dtype)
        damped.diagonal(dim1=-2, dim2=-1).add_((dead * mean + tried * mean).flip(-1).to(dtype))
        lower, failed = torch.linalg.cholesky_ex(damped)
        del damped
        if bool(failed.any()):
            continue
        invert_lower(lower)
        factor = lower.flip(-2, -1).to(hessian.dtype)
        scale = factor.diagonal(dim1=-2, dim2=-1).square()
        if bool(scale.isfinite().all()) and bool((scale > 0).all()):
            return Inverse(factor, scale.masked_fill(dead, torch.inf)), _notes(name, damp, tried)
    raise ModelError(
        f"the Hessian of layer '{name}' is singular even when damped by {_MOST_DAMP:g} of its mean diagonal: "
        "use more samples, or another criterion"
    )


def _attempts(damp: float) -> Iterator[tuple[torch.dtype, float]]:
    tried = damp
    while True:
        yield torch.float32, tried
        yield torch.float64, tried
        if tried >= _MOST_DAMP:
            return
        tried = min(tried * 10, _MOST_DAMP)


def _notes(name: str, damp: float, used: float) -> list[str]:
    if used == damp:
        return []
    return [f"{name}: the Hessian is singular; damp was raised from {damp:g} to {used:g}"]


def invert_lower(matrix: Tensor) -> None:
    """Invert lower triangular `matrix` [g, c, c] in place: halves first, then −C⁻¹ B A⁻¹ below them."""
    size = matrix.shape[-1]
    if size <= _LEAF:
        eye = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
        matrix.copy_(torch.linalg.solve_triangular(matrix, eye.expand_as(matrix), upper=False))
        return
    half = size // 2
    first, last, below = matrix[:, :half, :half], matrix[:, half:, half:], matrix[:, half:, :half]
    invert_lower(first)
    invert_lower(last)
    below.copy_(torch.matmul(last @ below, first).neg_())
