"""An exported BERT for every test here: the export takes seconds."""

from pathlib import Path

import pytest

from tests.unit.quantization.files import sharp_bert


@pytest.fixture(scope="session")
def bert_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float ONNX file of `sharp_bert`."""
    return sharp_bert(tmp_path_factory.mktemp("bert"))
