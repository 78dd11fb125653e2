"""Structured pruning of one model, round after round: trace, score, search the goal, cut."""

import copy
from collections.abc import Callable

from schemas.job_spec import JobSpec
from schemas.method import Structured
from schemas.report import Curve, GroupFigures
from schemas.schedule import Search
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.calibration import Calibration
from workers.pruning.layers import Choice
from workers.pruning.structured.graph import DependencyGraph, Removal
from workers.pruning.structured.history import History, replay
from workers.pruning.structured.latency import latency_after
from workers.pruning.structured.measures import bytes_after, macs_after, parameters_after
from workers.pruning.structured.plan import choose_groups, override_of, plan, step_of, that_may_shrink
from workers.pruning.structured.scores import unit_scores
from workers.pruning.structured.search import reach, trimmed
from workers.pruning.structured.surgery import remove
from workers.pruning.structured.trace import trace
from workers.story import Pruned

Remaining = Callable[[Removal], float]


class UnitPruner:
    """Removes units from the model itself; the history of cuts gives a dense module the same shapes."""

    def __init__(
        self, spec: JobSpec, dense: LoadedModel, calibration: Calibration, example: Batch, threads: int
    ) -> None:
        assert isinstance(spec.method, Structured)
        self._spec = spec
        self._quantity = "macs" if spec.goal is None else spec.goal.name
        self._method = _narrowed(spec.method, self._quantity)
        self._dense = dense
        self._calibration = calibration
        self._model = calibration.model
        self._trainable = {name for name, one in self._model.module.named_parameters() if one.requires_grad}
        self._example = example
        self._threads = threads
        self._history = History()
        self._dense_graph = self._trace(dense)
        self._chosen = choose_groups(self._dense_graph, self._method)
        self._sizes = {group.name: group.size for group in self._dense_graph.groups}
        self._counts = {name: self._count(name, dense, self._dense_graph)({}) for name in ("params", "macs")}

    @property
    def choice(self) -> Choice:
        return Choice((), {})

    @property
    def after_backward(self) -> None:
        return None

    def prune(self, share: float, number: int) -> None:
        graph = self._trace(self._model)
        remaining = self._remaining(graph)
        if self._history.rounds and remaining({}) <= 1 - share:
            return  # the last round went beyond its own share, as widths are whole
        chosen = that_may_shrink(graph, self._method)
        searches = isinstance(self._spec.schedule, Search)
        if searches and not chosen.groups:
            return
        scores = unit_scores(
            self._model.module,
            chosen.groups,
            self._method.criterion,
            seed=self._spec.seed,
            number=number,
            calibration=self._calibration,
        )
        final = self._spec.removed_after(self._spec.rounds_in_all())

        def planner(units: float) -> Removal:
            progress = min(1.0, share / final)
            return plan(
                chosen.groups, scores, self._method, units, dense_sizes=self._sizes, progress=progress
            )

        wanted = 1 - share
        if searches:
            wanted = max(wanted, remaining(planner(1.0)))  # a search takes what there is
        removal = reach(remaining, planner, wanted)
        if self._quantity != "latency":  # which takes seconds to measure, and is never the same twice
            free = [group for group in chosen.groups if override_of(group, self._method) is None]
            steps = {group.name: step_of(group, self._method.round_to) for group in free}
            removal = trimmed(remaining, removal, steps, scores, wanted)
        if removal:
            self._history = self._history.after(remove(self._model.module, graph, removal))

    def pruned(self) -> Pruned:
        graph = self._trace(self._model)
        parameters = self._count("params", self._model, graph)({})
        return Pruned(
            sparsity=1 - parameters / self._counts["params"],
            reached=1 - self._remaining(graph)({}),
            parameters=round(parameters),
            macs=round(self._count("macs", self._model, graph)({}) / self._batch()),
        )

    def surgery(self) -> str | None:
        return self._history.model_dump_json(exclude_defaults=True)

    def reset(self, surgery: str | None) -> None:
        module = copy.deepcopy(self._dense.module)
        self._history = History() if surgery is None else History.model_validate_json(surgery)
        replay(module, self._history)
        for name, one in module.named_parameters():
            one.requires_grad_(name in self._trainable)
        self._model.module = module

    def groups(self) -> list[GroupFigures]:
        return [
            GroupFigures(
                name=group.name,
                kind=group.kind,
                before=group.size,
                after=group.size - self._gone(group.name),
                reason=self._chosen.reasons.get(group.name),
            )
            for group in self._dense_graph.groups
        ]

    def _gone(self, group: str) -> int:
        """Units of a group that earlier rounds took; a head that is left alone makes no group of its own."""
        return sum(len(one.removed.get(group, ())) for one in self._history.rounds)

    def curves(self) -> list[Curve]:
        return []

    def notes(self) -> list[str]:
        frozen = self._dense_graph.frozen
        if not frozen:
            return []
        some = "; ".join(f"{name}: {reason}" for name, reason in list(frozen.items())[:5])
        more = f" and {len(frozen) - 5} more" if len(frozen) > 5 else ""
        return [f"The width of {len(frozen)} layers stays: {some}{more}."]

    def _trace(self, model: LoadedModel) -> DependencyGraph:
        return trace(model.module, lambda module: model.call(module, self._example))

    def _batch(self) -> int:
        return len(next(iter(self._example.values())))

    def _remaining(self, graph: DependencyGraph) -> Remaining:
        """What a removal leaves of the goal's quantity, as a share of the dense model's."""
        if self._quantity == "latency":
            return latency_after(self._dense, self._model, graph, self._example, self._spec, self._threads)
        after = self._count(self._quantity, self._model, graph)
        dense = self._count(self._quantity, self._dense, self._dense_graph)({})
        return lambda removal: after(removal) / dense

    def _units_left(self, model: LoadedModel) -> Remaining:
        """Heads or neurons that stay."""
        sizes = {group.name: group.size for group in self._dense_graph.groups if group.kind == self._quantity}
        left = sum(sizes.values())
        if model is self._model:
            left -= sum(self._gone(name) for name in sizes)
        return lambda removal: left - sum(len(units) for name, units in removal.items() if name in sizes)

    def _count(self, quantity: str, model: LoadedModel, graph: DependencyGraph) -> Remaining:
        if quantity == "macs":
            return macs_after(model, graph, self._example)
        if quantity == "params":
            return parameters_after(model.module, graph)
        if quantity == "size":
            return bytes_after(model.module, graph)
        return self._units_left(model)


def _narrowed(method: Structured, quantity: str) -> Structured:
    """A goal in heads or neurons removes only these."""
    return method.model_copy(update={"units": (quantity,)}) if quantity in ("heads", "neurons") else method
