"""Regression: the library's own loss, and the correlation as the metric."""

import numpy as np
import pytest
import torch

from tests import small_tasks as tasks
from workers.data.load import load_bundle
from workers.models.load import load_model
from workers.tasks.kind import Measured
from workers.tasks.regression import MSE, PEARSON, Regression


def measured(found: torch.Tensor, wanted: torch.Tensor, batch: int = 4) -> Measured:
    measure = Regression().measure(None, torch.device("cpu"))  # type: ignore[arg-type]
    for scores, labels in zip(found.split(batch), wanted.split(batch), strict=True):
        measure.update(scores[:, None], labels, {})
    return measure.compute()


@pytest.mark.parametrize("what", ["regression of texts", "regression of images"])
def test_the_loss_is_the_librarys_own(tmp_path, what):
    make_model, make_data, spec = tasks.CASES[what]
    model = load_model(make_model(tmp_path / "model"), spec.task)
    bundle = load_bundle(make_data(tmp_path / "data"), spec, model, seed=0)
    inputs, labels = next(bundle.batches(bundle.train, 8, device=model.device))

    loss = model.kind.loss(model.logits(inputs), labels)

    assert labels.dtype == torch.float32
    assert torch.isclose(loss, model.module(**inputs, labels=labels).loss)


def test_the_metric_is_pearsons_r_in_batches_of_any_size():
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(30, generator=generator)
    found = wanted + torch.randn(30, generator=generator)

    results = [measured(found, wanted, batch) for batch in (1, 7, 30)]

    r = np.corrcoef(found.numpy(), wanted.numpy())[0, 1]
    for result in results:
        assert result.value == pytest.approx(r, abs=1e-5)
        assert result.others == {
            PEARSON: pytest.approx(r, abs=1e-5),
            MSE: pytest.approx(float(((found - wanted) ** 2).mean()), rel=1e-5),
        }


def test_a_model_that_says_the_contrary_has_the_metric_0_and_the_report_says_r():
    result = measured(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]))

    assert result.value == 0
    assert result.others[PEARSON] == pytest.approx(-1)


def test_numbers_that_are_all_the_same_have_no_correlation():
    assert measured(torch.ones(5), torch.arange(5.0)).value == 0
    assert measured(torch.ones(1), torch.ones(1)).value == 0


def test_the_distillation_is_the_squared_distance_from_the_dense_model():
    found, wanted = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]])

    assert Regression().distillation(found, wanted, 2.0) == 2
