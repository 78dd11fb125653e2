"""Rounds are kept as JSON, and a fresh model with them is the pruned one, bit for bit."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.pruning.structured import graphs
from workers.errors import ModelError
from workers.pruning.structured.history import FILE, History, read_history, replay, write_history
from workers.pruning.structured.records import Surgery, runs_of
from workers.pruning.structured.surgery import remove


@pytest.mark.parametrize("name", graphs.CASES)
def test_a_fresh_model_with_the_history_is_the_pruned_one_bit_for_bit(name: str, tmp_path: Path):
    case = graphs.CASES[name]()
    fresh = copy.deepcopy(case.module)
    for parameter in fresh.parameters():
        parameter.data.normal_()
    removal = {group.name: np.arange(0, group.size, 2) for group in case.graph.groups}
    history = History().after(remove(case.module, case.graph, removal))

    write_history(history, tmp_path)
    replay(fresh, read_history(tmp_path))
    fresh.load_state_dict(case.module.state_dict())

    with torch.no_grad():
        assert torch.equal(case.output(fresh), case.output())


def test_rounds_are_replayed_one_after_the_other():
    case = graphs.mlp()
    fresh = copy.deepcopy(case.module)
    smaller = graphs.graph(graphs.group("0", "neurons", graphs.layer("0", 6) + graphs.reader("2", 6)))
    history = History().after(remove(case.module, case.graph, {"0": np.array([0, 7])}))
    history = history.after(remove(case.module, smaller, {"0": np.array([4])}))

    replay(fresh, history)

    assert torch.equal(case.output(fresh), case.output())
    assert history.removed() == [{"0": [0, 7]}, {"0": [4]}]


def test_positions_are_kept_as_runs():
    surgery = Surgery.model_validate(
        {"cuts": [{"tensor": "0.weight", "dim": 0, "size": 9, "runs": [[0, 2], [5, 9]]}]}
    )

    assert surgery.cuts[0].positions().tolist() == [0, 1, 5, 6, 7, 8]
    assert surgery.cuts[0].kept == 6
    assert runs_of(np.array([1, 1, 0, 0, 0, 1, 1, 1, 1], dtype=bool)) == surgery.cuts[0].runs


def test_a_file_is_small_and_plain_json(tmp_path: Path):
    case = graphs.residual()
    history = History().after(remove(case.module, case.graph, {"first": np.arange(8)}))

    path = write_history(history, tmp_path)

    first = json.loads(path.read_text())["rounds"][0]
    assert first["removed"] == {"first": list(range(8))}
    assert first["cuts"][0] == {"tensor": "first.weight", "dim": 0, "size": 16, "runs": [[8, 16]]}
    assert {"module": "first", "attribute": "out_channels", "value": 8} in first["changes"]


CUT = {"tensor": "0.weight", "dim": 0, "size": 8, "runs": [[0, 4]]}
CHANGE = {"module": "0", "attribute": "out_features", "value": 4}


@pytest.mark.parametrize(
    "cut",
    [
        {"tensor": "9.weight"},
        {"dim": 5},
        {"size": 7},
        {"runs": [[0, 9]]},
        {"runs": [[4, 2]]},
        {"runs": [[2, 4], [0, 1]]},
        {"runs": [[0, 3], [2, 5]]},
    ],
    ids=str,
)
def test_a_cut_that_does_not_fit_the_model_is_refused(cut: dict[str, object]):
    history = History.model_validate({"rounds": [{"cuts": [{**CUT, **cut}]}]})

    with pytest.raises(ModelError, match=r"does not fit the model of config\.json"):
        replay(graphs.mlp().module, history)


@pytest.mark.parametrize(
    "change",
    [
        {"module": "9"},
        {"attribute": "training"},
        {"attribute": "num_heads"},
        {"value": [1, 2]},
        {"value": "x"},
    ],
    ids=str,
)
def test_a_change_that_does_not_fit_the_model_is_refused(change: dict[str, object]):
    history = History.model_validate({"rounds": [{"changes": [{**CHANGE, **change}]}]})

    with pytest.raises(ModelError, match=r"does not fit the model of config\.json"):
        replay(graphs.mlp().module, history)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"version": 2}',
        '{"rounds": [{"cuts": [{"tensor": "a", "dim": -1, "size": 2, "runs": [[0, 1]]}]}]}',
        '{"rounds": [{"cuts": [{"tensor": "a", "dim": 0, "size": 2, "runs": []}]}]}',
        '{"rounds": [{"cuts": [{"tensor": "a", "dim": 0, "size": 2, "runs": [[-1, 1]]}]}]}',
        '{"rounds": [{"changes": [{"module": "", "attribute": "__class__", "value": 1}]}]}',
        '{"rounds": [{"changes": [{"module": "", "attribute": "a.b", "value": 1}]}]}',
        '{"rounds": [{"changes": [{"module": "", "attribute": "dim", "value": 1.5}]}]}',
        '{"rounds": [{"other": 1}]}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_nonsense_is_refused_with_the_name_of_the_file(text: str, tmp_path: Path):
    (tmp_path / FILE).write_text(text)

    with pytest.raises(ModelError, match=FILE):
        read_history(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match="not in the folder"):
        read_history(tmp_path)
