"""Every name of TensorRT that our code uses is in the real bindings of four versions, from the registry."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ROOT / "workers" / "benchmark" / "tensorrt"
CACHE = ROOT / ".cache" / "tensorrt"
SURFACE = Path(__file__).with_name("surface.py")

VERSIONS = {
    "10.3.0": "tensorrt-cu12-bindings",
    "10.13.3.9": "tensorrt-cu12-bindings",
    "11.0.0.114": "tensorrt-cu13-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
VARIABLES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "tensor": "ITensor",
    "error": "ParserError",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "runtime": "Runtime",
}
"""Class by the name that our code has for its objects."""
NOT_IN_10_3 = frozenset({"ParserError.node_name", "ParserError.node_operator"})
"""Our code asks whether they are there."""


def used() -> list[str]:
    """`BuilderFlag.TF32` and `IBuilderConfig.set_flag`, wherever our code has them."""
    text = "\n".join(path.read_text() for path in CODE.glob("*.py"))
    names = set(re.findall(r"\btrt\.([A-Za-z_]+(?:\.[A-Z][A-Za-z0-9_]*)*)", text))
    for variable, owner in VARIABLES.items():
        found = re.findall(rf"(?<![.\w])(?:self\._?)?{variable}\.([a-z_][a-z0-9_]*)", text)
        names |= {f"{owner}.{name}" for name in found}
    return sorted(names)


def bindings(version: str) -> Path:
    """The bindings alone in a folder, fetched once."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: the bindings need libraries to stand in for TensorRT's")
    folder = CACHE / version
    if not (folder / "tensorrt_bindings").is_dir():
        package = f"{VERSIONS[version]}=={version}"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(folder),
            package,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"{package} cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def test_the_names_are_found_in_our_code():
    names = used()

    assert {
        "BuilderFlag.SPARSE_WEIGHTS",
        "IBuilderConfig.set_flag",
        "IExecutionContext.execute_async_v3",
    } <= set(names)
    assert len(names) > 40


@pytest.mark.parametrize("version", VERSIONS)
def test_the_bindings_have_every_name_that_our_code_uses(version: str):
    command = [sys.executable, "-P", str(SURFACE), str(bindings(version)), *used()]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    found = json.loads(done.stdout)
    assert found["version"].startswith(version.rpartition(".")[0])
    assert set(found["lacking"]) - NOT_IN_10_3 == set()


def test_a_name_that_is_not_there_would_be_told():
    command = [sys.executable, "-P", str(SURFACE), str(bindings("11.4.0.106")), "BuilderFlag.FP16"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["lacking"] == ["BuilderFlag.FP16"]
