"""`secateur convert` and `secateur models` as users type them: an old checkpoint on its way into the zoo."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from service.app import create_app
from service.settings import Settings
from service.store.blobs import Blobs
from tests.api import served
from tests.integration.conftest import upload
from tests.tiny import bert


def secateur(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A BERT as folders were six years ago: two pickled shards, config, tokenizer, and code."""
    folder = bert(tmp_path / "old")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = list(weights)
    places = {name: f"pytorch_model-0000{1 + (name in names[20:])}-of-00002.bin" for name in names}
    for shard in set(places.values()):
        torch.save({name: weights[name] for name in names if places[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "modeling_custom.py").write_text("raise SystemExit('never run')")
    return folder


def test_an_old_folder_is_converted_uploaded_and_listed_as_readable(
    old: Path, tmp_path: Path, settings: Settings, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
):
    ran = secateur("convert", old, tmp_path / "a" / "new")
    assert ran.returncode == 0, ran.stderr
    upload(blobs, old, "default/old")
    upload(blobs, tmp_path / "a" / "new", "default/new")
    monkeypatch.setenv("SECATEUR_API_KEY", "any")
    with served(create_app(settings.model_copy(update={"auth": False}))) as url:
        monkeypatch.setenv("SECATEUR_URL", url)
        shown = secateur("models", f"s3://{blobs.bucket}/default")
        answer = json.loads(secateur("models", f"s3://{blobs.bucket}/default/", "--json").stdout)
        absent = secateur("models", "s3://no-such-bucket/")

    assert "modeling_custom.py" in ran.stdout
    assert not (tmp_path / "a" / "new" / "modeling_custom.py").exists()
    new, before = answer["data"]
    assert (new["readable"], new["tasks"], new["parameters"]) == (True, ["text-classification"], 5908)
    assert (before["readable"], answer["has_more"]) == (False, False)
    assert "run `secateur convert`" in before["reason"]
    assert "2 models (2 transformers), 1 readable" in shown.stdout
    assert (absent.returncode, "there is no such bucket" in absent.stderr) == (2, True)


def test_a_checkpoint_of_a_training_script_becomes_the_models_tensors(tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    weight = torch.randn(4, 3)
    state = {"module.emb.weight": weight, "module.head.weight": weight, "module.t": torch.randn(2, 3).T}
    torch.save({"epoch": 1, "state_dict": state, "optimizer": {}}, folder / "best.ckpt")

    ran = secateur("convert", folder / "best.ckpt", folder, "--json")

    assert ran.returncode == 0, ran.stderr
    done: dict[str, Any] = json.loads(ran.stdout)
    stored = load_file(folder / "model.safetensors")
    assert {name: value.tolist() for name, value in stored.items()} == {
        "emb.weight": weight.tolist(),
        "t": state["module.t"].tolist(),
    }
    assert done["dropped"] == [{"name": "head.weight", "kept": "emb.weight"}]
    assert (done["found_under"], done["prefix"]) == ("state_dict", "module.")
    assert done["left_out"] == ["epoch (int)", "optimizer (dict of 0)"]
    assert (done["tensors"], done["parameters"], done["dtypes"]) == (2, 18, {"F32": 18})
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "model.safetensors"]
    assert "no config.json yet" in ran.stderr
    again = secateur("convert", folder / "best.ckpt", folder)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("absent.pt", "new"), "absent.pt does not exist"),
        (("a.pt", "full"), "full is there and not empty"),
        (("a.pt", "new", "--max-memory", "lots"), "'lots' is no size"),
    ],
)
def test_wrong_usage_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], message: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pt").write_bytes(b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"")

    ran = secateur("convert", *args)

    assert (ran.returncode, message in ran.stderr) == (2, True), ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "full"]
