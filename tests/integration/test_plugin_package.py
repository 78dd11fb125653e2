"""The plug-in in deploy/plugin, installed by pip and used by a process that finds it by its entry points."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "deploy" / "plugin"
SCRIPT = """
import json
import sys
from pathlib import Path

import torch
from acme_secateur import build

from schemas.job_spec import JobSpec
from tests import tiny
from tests.plugins import model_folder
from workers.data.load import load_bundle
from workers.evaluate import judge
from workers.models.load import load_model
from workers.models.save import save_model
from workers.pruning.calibration import Calibration
from workers.pruning.make import make_pruner
from workers.pruning.structured.history import History
from workers.pruning.structured.reload import save_pruned
from workers.training.round import train_round

def load(path, spec):
    return load_model(path, spec.data.task, plugin=spec.data.plugin)


def metric(model, bundle):
    return judge(model, bundle, batch_size=16, on_batch=lambda *_: None).value


def count(model, what):
    return sum(int(what(one).sum()) for one in model.module.parameters())


def run(folder, data, out, **changes):
    spec = JobSpec.model_validate({
        "model": {"uri": "s3://zoo/m/"}, "data": {"uri": "s3://data/d/", "plugin": "acme-balanced"},
        "schedule": {"kind": "one_shot"}, "fine_tune": {"epochs": 1, "batch_size": 32}, **changes,
    })
    model, dense = load(folder, spec), load(folder, spec)
    bundle = load_bundle(data, spec.data, model, seed=0)
    example, _ = next(bundle.batches(bundle.validation.first(2), 2, device=model.device))
    pruner = make_pruner(spec, dense, Calibration(model, bundle, 0, 32, lambda: None), example, 1)
    pruner.prune(0.5, 1)
    steps = []
    train_round(spec, model, dense, bundle, pruner, share=0.5, number=1, epochs=1,
                on_step=steps.append, evaluate_epoch=None)
    if pruner.surgery():
        save_pruned(model, History.model_validate_json(pruner.surgery()), out, example)
    else:
        save_model(model, out)
    model.module.eval()
    again = load(out, spec)
    [(inputs, labels)] = bundle.batches(bundle.validation, 16, device=model.device)
    right = again.logits(inputs).argmax(1) == labels
    recalls = [right[labels == one].float().mean().item() for one in labels.unique()]
    assert torch.equal(again.logits(inputs), model.logits(inputs))
    assert metric(again, bundle) == metric(model, bundle)
    assert abs(metric(again, bundle) - sum(recalls) / len(recalls)) < 1e-6
    return {
        "architecture": again.architecture,
        "metric": again.kind.metric_name,
        "steps": len(steps),
        "parameters": count(again, torch.ones_like) / count(dense, torch.ones_like),
        "zeros": count(again, lambda one: one == 0) / count(again, torch.ones_like),
        "files": sorted(path.name for path in out.iterdir()),
    }


work = Path(sys.argv[1])
module = build({"input_size": [1, 16, 16], "num_classes": 4})
folder = model_folder(work / "model", module, "acme-cnn")
data = tiny.image_npz(work / "data", train=32, validation=16)
structured = {"goal": {"params": 0.5}, "method": {"pattern": "structured", "round_to": 1}}
zeros = run(folder, data, work / "zeros", goal={"sparsity": 0.5})
print(json.dumps([zeros, run(folder, data, work / "smaller", **structured)]))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where pip has installed the package; its source is copied, for builders write beside it."""
    source, site = (tmp_path / name for name in ("source", "site"))
    shutil.copytree(TEMPLATE, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", site, source], check=True)
    return site


def test_its_model_is_pruned_trained_judged_by_its_metric_saved_and_loaded_again(site: Path, tmp_path: Path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))}

    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path], env=env, capture_output=True, text=True, cwd=tmp_path
    )

    assert ended.returncode == 0, ended.stderr
    zeros, smaller = json.loads(ended.stdout.splitlines()[-1])
    for one in (zeros, smaller):
        told = (one["architecture"], one["metric"], one["steps"])
        assert told == ("acme-cnn/Sequential", "balanced accuracy", 1)
    assert zeros["parameters"] == 1
    assert 0.4 < zeros["zeros"] < 0.55
    assert zeros["files"] == ["config.json", "model.safetensors"]
    assert 0.4 < smaller["parameters"] < 0.6
    assert smaller["files"] == ["config.json", "model.pt2", "model.safetensors", "surgery.json"]


def test_the_template_has_less_than_forty_lines():
    code = "".join(path.read_text() for path in TEMPLATE.glob("*.py"))

    assert 0 < len(code.splitlines()) < 40
