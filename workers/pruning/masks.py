"""Pruning by zeros: single weights anywhere, or N of M."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from schemas.job_spec import JobSpec
from schemas.method import SemiStructured, Unstructured
from schemas.report import Curve, GroupFigures
from schemas.schedule import Search
from workers.errors import PreflightError
from workers.evaluate import metric_of
from workers.figures import gzip_bytes
from workers.pruning.allocation import override_that_fits
from workers.pruning.calibration import Calibration, drawn
from workers.pruning.cut import CutResult, cut, zeros_of
from workers.pruning.layers import Choice, choose, outside_layers, packed_attention, prunable_layers
from workers.pruning.nm import eligible
from workers.pruning.permutation import permute_for
from workers.pruning.scores.movement import MovementScores
from workers.pruning.structured.trace import trace
from workers.story import Pruned

MOST = 0.999
"""The largest sparsity that a goal in `size` may ask for."""
SIZE_TRIES = 10
"""Halvings of the sparsity in which a goal in `size` is met: to a thousandth."""


class MaskPruner:
    """Makes zeros in place; a zero is the mask, so a checkpoint of the weights is all there is."""

    def __init__(self, spec: JobSpec, calibration: Calibration, run: Callable[[nn.Module], object]) -> None:
        assert isinstance(spec.method, Unstructured | SemiStructured)
        self._spec = spec
        self._method = spec.method
        self._calibration = calibration
        self._model = calibration.model
        self._run = run
        self._choice = chosen(self._model.module, spec.method)
        self._movement = MovementScores() if spec.method.criterion.kind == "movement" else None
        self._counts_bytes = spec.goal is not None and spec.goal.name == "size"
        self._dense_bytes = compressed_bytes(self._model.module) if self._counts_bytes else 0
        self._last: CutResult | None = None
        self._notes: list[str] = []

    @property
    def choice(self) -> Choice:
        return self._choice

    @property
    def after_backward(self) -> Callable[[], None] | None:
        movement = self._movement
        return None if movement is None else lambda: movement.update(self._choice.pruned)

    def prune(self, share: float, number: int) -> None:
        # a model that another attempt has cut was permuted by it, and its zeros hang on that order
        first = number <= 1 and not self._notes
        if isinstance(self._method, SemiStructured) and self._method.permute and first:
            self._permute(self._method)
        if self._counts_bytes:
            self._cut_to_size(share, number)
        else:
            self._cut(share, number)

    def pruned(self) -> Pruned:
        layers = self._choice.pruned
        sparsity = zeros_of(layers) / sum(layer.weight.numel() for layer in layers)
        if not self._counts_bytes:
            return Pruned(sparsity)
        return Pruned(sparsity, reached=1 - compressed_bytes(self._model.module) / self._dense_bytes)

    def surgery(self) -> str | None:
        return None

    def reset(self, surgery: str | None) -> None:
        if surgery is not None:
            raise PreflightError("the checkpoint is that of a structured job: submit the job again")

    def groups(self) -> list[GroupFigures]:
        return []

    def curves(self) -> list[Curve]:
        return list(self._last.curves) if self._last else []

    def notes(self) -> list[str]:
        told = [*self._model.notes, *self._notes, *(self._last.notes if self._last else [])]
        if packed := packed_attention(self._model.module):
            told.append(
                f"The packed query, key and value weights (in_proj_weight) of {len(packed)} attention layers "
                f"stay dense: the first is {packed[0]}."
            )
        if outside := outside_layers(self._model.module):
            told.append(
                f"{sum(outside.values()):,} weights lie in no linear layer and no convolution (experts, for "
                f"example) and stay dense: the first of {len(outside)} tensors is {next(iter(outside))}."
            )
        return told

    def _cut(self, share: float, number: int) -> None:
        self._last = cut(
            self._choice,
            self._method,
            share,
            calibration=self._calibration,
            evaluate=self._evaluate,
            movement=self._movement,
            seed=self._spec.seed,
            number=number,
            progress=self._progress(share),
        )

    def _progress(self, share: float) -> float:
        """How much of an override is due: as much as there is room for, where there is no way of rounds to a
        goal in sparsity."""
        if isinstance(self._spec.schedule, Search) or self._counts_bytes:
            overrides = self._method.overrides if isinstance(self._method, Unstructured) else {}
            return override_that_fits(self._choice.pruned, overrides, share)
        return min(1.0, share / self._spec.removed_after(self._spec.rounds_in_all()))

    def _cut_to_size(self, share: float, number: int) -> None:
        """Bisect the sparsity until the compressed file is as small as asked.

        Raises PreflightError where no sparsity makes it so.
        """
        layers = self._choice.pruned
        before = [layer.weight.detach().clone() for layer in layers]
        low, high = 0.0, MOST
        for _ in range(SIZE_TRIES):
            middle = (low + high) / 2
            low, high = (middle, high) if self._is_too_large(middle, share, number) else (low, middle)
            with torch.no_grad():
                for layer, weights in zip(layers, before, strict=True):
                    layer.weight.copy_(weights)
        self._cut(high, number)
        left = compressed_bytes(self._model.module) / self._dense_bytes
        if high == MOST and left > 1 - share:
            raise PreflightError(
                f"goal.size: {1 - share:.1%} shall remain after compression, and {left:.1%} remain when "
                f"{MOST:.1%} of the weights of the pruned layers are zero: raise the goal, or widen "
                "method.include"
            )

    def _is_too_large(self, sparsity: float, share: float, number: int) -> bool:
        """Whether the file is larger than asked for after a cut, which stays; no where caps or overrides do
        not allow so many zeros."""
        try:
            self._cut(sparsity, number)
        except PreflightError:
            return False
        return compressed_bytes(self._model.module) > (1 - share) * self._dense_bytes

    def _evaluate(self) -> float:
        """The metric on calibration samples, to measure sensitivity by."""
        bundle, allocation = self._calibration.bundle, getattr(self._method, "allocation", None)
        samples = getattr(allocation, "samples", len(bundle.train))
        split = drawn(bundle.calibration or bundle.train, samples, seed=self._spec.seed)
        return metric_of(
            self._model,
            bundle.judged_by(split),
            batch_size=self._calibration.batch_size,
            on_batch=lambda *_: self._calibration.on_batch(),
        )

    def _permute(self, method: SemiStructured) -> None:
        graph = trace(self._model.module, self._run)

        def outputs() -> Tensor:
            self._model.module.eval()
            scores = self._run(self._model.module)
            assert isinstance(scores, Tensor)
            return scores

        permuted = permute_for(
            self._model.module,
            graph,
            self._choice.pruned,
            method.n,
            method.m,
            outputs=outputs,
            seed=self._spec.seed,
        )
        self._notes = permuted.notes


def chosen(module: nn.Module, method: Unstructured | SemiStructured) -> Choice:
    """The layers that `method` prunes; with N:M those whose shape can take the pattern.

    Raises PreflightError where none is left.
    """
    choice = choose(prunable_layers(module), method)
    if isinstance(method, Unstructured):
        return choice
    reasons = dict(choice.reasons)
    for layer in choice.pruned:
        if reason := eligible(layer, method.n, method.m):
            reasons[layer.name] = reason
    made = Choice(choice.layers, reasons)
    if not made.pruned:
        name, reason = next(iter(reasons.items()))
        raise PreflightError(
            f"no layer can take the pattern {method.n}:{method.m} ({name}: {reason}): use pattern "
            "'unstructured'"
        )
    return made


def compressed_bytes(module: nn.Module) -> int:
    """Size of the module's safetensors file after gzip."""
    with TemporaryDirectory(prefix="secateur-") as folder:
        path = Path(folder) / "model.safetensors"
        save_model(module, str(path))
        return gzip_bytes(path)
