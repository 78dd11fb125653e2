"""Language models as whole jobs: from the order to the files, on a tiny Llama and a real S3."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from schemas.report import Report
from service.store.blobs import Blobs
from tests import language, tiny
from tests.integration.conftest import Run, order_of, tiny_spec, upload
from tests.integration.test_session import result
from workers.pruning.nm import holds

TASK = {"task": "causal-lm", "max_length": 16}
ONE_SHOT = {"schedule": {"kind": "one_shot"}, "fine_tune": {"epochs": 0}}
BLOCKS = {"include": ["model.layers.*"]}


@pytest.fixture
def uris(blobs: Blobs, tmp_path: Path) -> tuple[str, str]:
    language.llama(tmp_path / "model")
    texts, _ = tiny.texts(200)
    data = language.text_folder(tmp_path / "data", train=texts, validation=texts[:60])
    return upload(blobs, tmp_path / "model", "zoo/llama"), upload(blobs, data, "data/text")


@pytest.mark.parametrize("kind", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["unstructured", "semi_structured"])
def test_a_language_model_is_cut_by(
    kind: str, pattern: str, blobs: Blobs, tmp_path: Path, uris: tuple[str, str], run_order: Run
):
    criterion: dict[str, Any] = {"kind": kind} if kind == "magnitude" else {"kind": kind, "samples": 8}
    method = {"pattern": pattern, "criterion": criterion, **BLOCKS}
    if pattern == "unstructured":
        method["allocation"] = {"kind": "uniform", "keep_first_and_last": False}
    spec = tiny_spec(*uris, task=TASK, method=method, **ONE_SHOT)

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = Report.model_validate_json((folder / "report.json").read_text())
    pruned = [layer for layer in report.layers if layer.pruned]
    assert {layer.name for layer in report.layers} - {layer.name for layer in pruned} == {"lm_head"}
    assert sum(layer.zeros for layer in pruned) * 2 == sum(layer.weights for layer in pruned)
    assert report.metric_name == "token probability"
    assert any(note.startswith("Perplexity") for note in report.notes)
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "llama"
    if pattern == "semi_structured":
        weights = load_file(folder / "model.safetensors")
        assert all(holds(weights[f"{layer.name}.weight"], 2, 4, kind=layer.kind) for layer in pruned)


def test_grouped_query_heads_leave_a_language_model_as_whole_groups(
    blobs: Blobs, tmp_path: Path, uris: tuple[str, str], run_order: Run
):
    method = {"pattern": "structured", "units": ["heads"]}
    spec = tiny_spec(*uris, task=TASK, goal={"heads": 0.5}, method=method, **ONE_SHOT)

    folder = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    report = Report.model_validate_json((folder / "report.json").read_text())
    assert [(one.before, one.after) for one in report.groups if one.kind == "heads"] == [(2, 1), (2, 1)]
    weights = load_file(folder / "model.safetensors")
    assert weights["model.layers.0.self_attn.q_proj.weight"].shape == (8, 16)
    assert weights["model.layers.0.self_attn.k_proj.weight"].shape == (4, 16)
