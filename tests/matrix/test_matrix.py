"""A few cells of the matrix, one of each library; `make bar-matrix` runs them all."""

from pathlib import Path

import pytest

from tests.matrix.case import FORMATS, run

CELLS = [
    ("transformers, token-classification", "structured"),
    ("timm, image-classification", "2:4"),
    ("torchvision, image-classification", "unstructured"),
    ("pt2, image-classification", "structured"),
    ("onnx, image-classification", "2:4"),
]


@pytest.mark.parametrize(("name", "pattern"), CELLS)
def test_a_result_gives_the_same_outputs_in_its_own_library(name: str, pattern: str, tmp_path: Path):
    outcome = run(name, pattern, tmp_path)

    assert outcome.failure is None
    assert outcome.difference <= outcome.allowed


def test_every_task_of_the_product_is_in_the_matrix():
    assert len({form.data.task for form in FORMATS.values()}) == 11
