"""Parts of a job spec that are each well formed and do not go together."""

from typing import TYPE_CHECKING

from schemas.goal import STRUCTURED_GOALS
from schemas.method import SemiStructured, Structured, Unstructured
from schemas.quantize import NoQuantization
from schemas.schedule import Iterative, Search
from schemas.task import Task

if TYPE_CHECKING:
    from schemas.job_spec import JobSpec

ONNX_SUFFIX = ".onnx"
NEEDS_GRADIENTS = frozenset({"taylor", "snip", "fisher", "hessian", "movement"})


def refuse_what_does_not_go_together(spec: "JobSpec") -> None:
    """Raises ValueError with the fields and the remedy."""
    if spec.model.uri.endswith(ONNX_SUFFIX) and (reason := beyond_onnx(spec)) is not None:
        raise ValueError(reason)
    _refuse_what_needs_data(spec)
    _refuse_augmentation_of_other_than_images(spec)
    _refuse_what_needs_labels(spec)
    if spec.recipe is not None:
        _refuse_choices_beside_recipe(spec)
        return
    if (spec.goal is None) != isinstance(spec.schedule, Search):
        raise ValueError(
            "a schedule 'search' finds the most that the floor allows and takes no goal: leave one out"
            if spec.goal is not None
            else "give a goal, or schedule 'search' to find the most that the floor allows"
        )
    _refuse_goal_of_another_pattern(spec)
    _refuse_training_method_without_training(spec)
    _refuse_criterion_that_cannot_follow(spec)
    _refuse_what_a_schedule_cannot_know(spec)
    _refuse_teacher_of_another_order(spec)


def beyond_onnx(spec: "JobSpec") -> str | None:
    """What the spec asks for and an ONNX file cannot give, with the remedy; None: nothing.

    It has no gradients, so nothing is trained, and its graph stays as it is.
    """
    method, because = spec.method, "an ONNX file has no gradients"
    if spec.recipe is not None:
        return f"recipe '{spec.recipe}' fine-tunes, and {because}: leave out the recipe and give a goal"
    if isinstance(method, Structured):
        return (
            "pattern 'structured' makes layers smaller, and the graph of an ONNX file stays as it is: use "
            "pattern 'unstructured' or 'semi_structured', or give the model as config.json and *.safetensors"
        )
    if method.criterion.kind in NEEDS_GRADIENTS:
        return (
            f"criterion '{method.criterion.kind}' needs gradients, and {because}: use "
            "method.criterion 'magnitude', 'wanda' or 'sparsegpt'"
        )
    if isinstance(method, SemiStructured) and method.permute:
        return "method.permute reorders layers, and the graph of an ONNX file stays as it is: leave it out"
    if spec.schedule.kind == "gradual":
        return f"schedule 'gradual' prunes while it trains, and {because}: use schedule 'iterative'"
    if spec.fine_tune.epochs + spec.fine_tune.final_epochs > 0:
        return (
            f"{because} and cannot be fine-tuned: set fine_tune.epochs and fine_tune.final_epochs to 0, or "
            "give the model as config.json and *.safetensors"
        )
    if spec.fine_tune.regrow is not None:
        return f"fine_tune.regrow moves zeros in training, and {because}: leave it out"
    return None


def _refuse_what_needs_data(spec: "JobSpec") -> None:
    """With `data.synthetic` nothing can be learned, and no floor can be promised."""
    if not spec.data.synthetic:
        return
    method, remedy = spec.method, "or give data.uri"
    needs = [
        (spec.recipe is not None, "recipe", "measures and fine-tunes", "leave it out and give a goal"),
        (spec.trains, "fine_tune.epochs", "learns from data", "set fine_tune.epochs and final_epochs to 0"),
        (
            method.criterion.needs_data,
            f"method.criterion '{method.criterion.kind}'",
            "measures on data",
            "use 'magnitude', 'random', or for channels 'bn_scale' or 'fpgm'",
        ),
        (
            isinstance(method, Unstructured) and method.allocation.kind == "sensitivity",
            "method.allocation 'sensitivity'",
            "measures the metric of each layer",
            "use allocation 'global', 'uniform', 'erk' or 'lamp'",
        ),
        (isinstance(spec.schedule, Search), "schedule 'search'", "goes by a floor", "give a goal"),
        (
            spec.floor.min_value != 0,
            "floor",
            "would promise an accuracy that nothing was measured by",
            "leave it out",
        ),
    ]
    for is_asked, field, does, instead in needs:
        if is_asked:
            raise ValueError(f"{field} {does}, and data.synthetic is random inputs: {instead}, {remedy}")


def _refuse_augmentation_of_other_than_images(spec: "JobSpec") -> None:
    if spec.fine_tune.augment == "none":
        return
    if spec.data.task is not Task.image_classification:
        raise ValueError(
            f"fine_tune.augment '{spec.fine_tune.augment}' changes images and keeps their labels, which task "
            f"'{spec.data.task}' has no use for: set fine_tune.augment to 'none'"
        )
    if not spec.trains and spec.recipe is None:
        raise ValueError("fine_tune.augment changes training images: set fine_tune.epochs to 1 or more")


def _refuse_choices_beside_recipe(spec: "JobSpec") -> None:
    defaults = {"goal": None, "method": Unstructured(), "schedule": Iterative(), "quantize": NoQuantization()}
    chosen = [name for name, default in defaults.items() if getattr(spec, name) != default]
    if chosen:
        raise ValueError(
            f"recipe 'auto' chooses {', '.join(chosen)} itself: leave it out, or leave out the recipe"
        )
    if "onnx" not in spec.export:
        raise ValueError("recipe 'auto' quantizes to INT8, which makes an ONNX file: add 'onnx' to export")
    if spec.fine_tune.regrow is not None:
        raise ValueError(
            "recipe 'auto' prunes channels, which leaves no zeros to move: leave out fine_tune.regrow"
        )


def _refuse_goal_of_another_pattern(spec: "JobSpec") -> None:
    method, goal = spec.method, spec.goal
    if isinstance(method, SemiStructured):
        if goal is None:
            raise ValueError(f"a pattern of {method.n}:{method.m} has one sparsity only: give goal.sparsity")
        if goal.name != "sparsity" or abs(goal.value - method.sparsity) > 1e-6:
            raise ValueError(
                f"a pattern of {method.n}:{method.m} makes {method.sparsity:g} sparsity and nothing else: "
                f"set goal.sparsity to {method.sparsity:g}, or use pattern 'unstructured'"
            )
    elif isinstance(method, Structured):
        if goal is not None and goal.name == "sparsity":
            raise ValueError(
                "pattern 'structured' removes channels and leaves no zeros: give goal.params, macs, size, "
                "latency, heads or neurons (what remains), or use pattern 'unstructured'"
            )
        if goal is not None and goal.name in ("heads", "neurons") and goal.name not in method.units:
            raise ValueError(f"goal '{goal.name}' needs '{goal.name}' in method.units")
    elif goal is not None and goal.name in STRUCTURED_GOALS:
        raise ValueError(
            f"goal '{goal.name}' needs pattern 'structured', since a zero is still stored and multiplied: "
            "set method.pattern, or use goal.sparsity"
        )


def _refuse_what_needs_labels(spec: "JobSpec") -> None:
    """What is judged by a classifier's scores."""
    task = spec.data.task
    if spec.recipe is not None and not task.classifies:
        raise ValueError(f"recipe 'auto' is for classifiers: give goal and method for task '{task}'")
    if spec.quantize.kind.startswith("int8") and task.is_language_model:
        raise ValueError(
            f"INT8 is not available for task '{task}' in this version: set quantize.kind to 'none'"
        )
    if spec.fine_tune.label_smoothing > 0 and task is Task.regression:
        raise ValueError("a regression has no classes to smooth: leave out fine_tune.label_smoothing")


def _refuse_criterion_that_cannot_follow(spec: "JobSpec") -> None:
    """What one combination of fields cannot do, though each of them can."""
    method, criterion = spec.method, spec.method.criterion.kind
    if isinstance(method, SemiStructured) and criterion == "sparsegpt" and spec.rounds_in_all() > 1:
        raise ValueError(
            f"criterion 'sparsegpt' makes {method.n}:{method.m} at once: use schedule 'one_shot', or "
            "criterion 'wanda'"
        )
    if not isinstance(method, Unstructured):
        return
    if criterion == "hessian" and method.allocation.kind == "global" and method.allocation.cap < 1:
        raise ValueError(
            "criterion 'hessian' ranks all weights while it moves them: leave out method.allocation.cap"
        )
    measures = method.allocation.kind == "sensitivity"
    if measures and spec.goal is not None and spec.goal.name == "size":
        raise ValueError(
            "goal 'size' tries several sparsities in each round, and allocation 'sensitivity' would measure "
            "every layer each time: use goal 'sparsity', or allocation 'erk'"
        )


def _refuse_what_a_schedule_cannot_know(spec: "JobSpec") -> None:
    method, goal, kind = spec.method, spec.goal, spec.schedule.kind
    if kind == "search" and spec.fine_tune.final_epochs > 0:
        raise ValueError(
            "schedule 'search' does not know which round is its last: leave out fine_tune.final_epochs and "
            "raise fine_tune.epochs"
        )
    if kind != "gradual":
        return
    if isinstance(method, Unstructured) and method.allocation.kind == "sensitivity":
        raise ValueError(
            "schedule 'gradual' cuts every few steps, and allocation 'sensitivity' would measure every layer "
            "each time: use allocation 'erk', or schedule 'iterative'"
        )
    if goal is not None and goal.name == "size":
        raise ValueError(
            "schedule 'gradual' cuts every few steps, and goal 'size' would compress the model several times "
            "for each: use goal 'sparsity', or schedule 'iterative'"
        )


def _refuse_teacher_of_another_order(spec: "JobSpec") -> None:
    method, distill = spec.method, spec.fine_tune.distill
    if isinstance(method, SemiStructured) and method.permute and distill and distill.hidden_weight > 0:
        raise ValueError(
            "method.permute reorders channels, and the dense teacher's stay as they are, so that hidden "
            "states do not compare: leave out method.permute or fine_tune.distill.hidden_weight"
        )


def _refuse_training_method_without_training(spec: "JobSpec") -> None:
    trains = spec.fine_tune.epochs + spec.fine_tune.final_epochs > 0
    if spec.schedule.kind == "gradual":
        if not isinstance(spec.method, Unstructured):
            raise ValueError("schedule 'gradual' grows a mask of single weights: use pattern 'unstructured'")
        if not trains:
            raise ValueError("schedule 'gradual' prunes while it trains: set fine_tune.epochs to 1 or more")
    if spec.fine_tune.regrow is not None and not isinstance(spec.method, Unstructured):
        raise ValueError(
            "fine_tune.regrow moves single zeros, which breaks a pattern of N:M and finds none in a "
            "structured model: leave it out, or use pattern 'unstructured'"
        )
    if spec.fine_tune.regrow is not None and not trains:
        raise ValueError("fine_tune.regrow moves zeros in training: set fine_tune.epochs to 1 or more")
    if spec.method.criterion.kind == "movement" and spec.schedule.kind != "gradual":
        raise ValueError("criterion 'movement' learns its scores while it trains: use schedule 'gradual'")
    if spec.method.criterion.needs_data and spec.schedule.kind == "gradual":
        raise ValueError(
            f"schedule 'gradual' cuts every few steps, and criterion '{spec.method.criterion.kind}' would "
            "measure the data each time: use 'magnitude' or 'movement', or schedule 'iterative'"
        )
