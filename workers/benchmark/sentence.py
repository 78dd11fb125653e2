"""Verdicts in words."""

from schemas.benchmark import Verdict
from workers.benchmark.stats import UNSTABLE_ABOVE, Interval

UNITS_NOTE = "What was removed is not computed any more; both files are ordinary dense ONNX models."


def zeros_note(runtime: str) -> str:
    """What zeros mean for a runtime that has no kernels for them."""
    return (
        f"{runtime} computes zeros like any other weight: unstructured sparsity makes the file smaller when "
        "compressed, not the model faster."
    )


def sentence(batch_size: int, verdict: Verdict, measured: Interval, noise: float) -> str:
    """One sentence for one batch size; it claims no more than the interval shows."""
    span = f"{measured.low:.2f}x to {measured.high:.2f}x with 95 % confidence, noise {noise * 100:.1f} %"
    match verdict:
        case Verdict.unstable:
            text = (
                f"nothing can be said: the dense model differs from itself by up to {noise * 100:.0f} % "
                f"(limit {UNSTABLE_ABOVE * 100:.0f} %), usually because other work runs on the machine"
            )
        case Verdict.no_difference:
            text = f"no difference can be shown: {span}"
        case Verdict.faster | Verdict.slower:
            text = (
                f"the pruned model is {verdict.value}, {measured.value:.2f}x the dense model's speed: {span}"
            )
    return f"Batch {batch_size}: {text}."
