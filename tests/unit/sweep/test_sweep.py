"""The sweep counts honestly: what it calls passed, and what its table says."""

import pytest
import torch
from torch import Tensor, nn

from tests.sweep.architectures import cases
from tests.sweep.case import Case
from tests.sweep.stages import attempt
from tests.sweep.table import passed, render, verdict

PIXELS = {"pixel_values": ((3, 8, 8), "pixels")}
CHECK = {
    "outcome": "passed",
    "parameters": 2000,
    "parameters_after": 900,
    "macs": 3_000_000,
    "macs_after": 2_000_000_000,
    "difference": 2e-7,
    "plain_mask": True,
    "seconds": 0.251,
    "reasons": {"fc": "the model's output", "aux": "the model's output"},
}
EXPORT = {"outcome": "passed", "onnx_diff": 1e-6}


class Small(nn.Module):
    """A convolution, a norm and a classifier; `scale` times its features are added to a constant."""

    def __init__(self, *, scale: float = 1.0, extra: int = 0) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.scale, self.extra = scale, extra

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm(self.conv(x)))
        if self.extra and inner.shape[1] < 8:
            inner = inner + self.extra  # what a cut must not change
        return self.fc(self.scale * inner.mean((2, 3)))


def test_a_right_cut_passes():
    record = attempt(Case("timm/small", Small, PIXELS), "check")

    assert record["outcome"] == "passed", record
    assert record["parameters_after"] < record["parameters"]
    assert record["difference"] < 1e-5


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Small(extra=1), "differs from its masked twin"),
        (lambda: Small(scale=1e-9), "could not show a mistake"),
        (lambda: Small(scale=float("nan")), "not finite"),
    ],
)
def test_a_wrong_model_and_a_blind_check_are_failures(build, told):
    record = attempt(Case("timm/small", build, PIXELS), "check")

    assert record["outcome"] == "failed"
    assert told in record["reason"]


def test_a_model_without_units_is_refused_with_the_reason():
    record = attempt(
        Case("timm/flat", lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), PIXELS), "check"
    )

    assert record["outcome"] == "refused"
    assert "no units" in record["reason"]


def test_all_classifiers_of_torchvision_and_enough_families_are_there():
    libraries = [case.library for case in cases().values()]

    assert libraries.count("torchvision") == 80
    assert libraries.count("timm") >= 25
    assert libraries.count("transformers") >= 15


def test_only_what_ran_to_the_end_counts_as_passed():
    refused = {"outcome": "refused", "reason": "no operator"}

    assert passed({"check": CHECK, "export": EXPORT})
    assert not passed({"check": CHECK, "export": None})
    assert not passed({"check": CHECK, "export": refused})
    assert verdict({"check": CHECK, "export": refused}) == "refused: no operator"
    assert verdict({"check": None, "export": None}) == "check: not run"


def test_the_table_tells_sizes_what_stays_dense_and_what_failed():
    zoo = {name: Case(name, Small, PIXELS) for name in ("timm/good", "timm/bad", "torchvision/other")}
    records = {
        "timm/good": {"check": CHECK, "export": EXPORT},
        "timm/bad": {"check": {"outcome": "failed", "reason": "a | b"}, "export": None},
        "torchvision/other": {"check": {**CHECK, "plain_mask": False}, "export": EXPORT},
    }

    text = render(zoo, records, today="2026-01-02")

    assert "**2 of 3 pass (66.7%).** Timm: 1 of 2, torchvision: 1 of 1." in text
    row = "| good | 3×8×8 | 2,000 → 900 | 3.0 M → 2.00 G | 2e-07 | equal | 0.25 |"
    assert f"{row} `fc` and 1 more: the model's output |" in text
    assert "| bad | 3×8×8 | | | | | | **failed: a \\| b** |" in text
    assert "| 2e-07° |" in text
    assert "on 2026-01-02 with torch" in text
