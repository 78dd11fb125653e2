"""Every loader of what users give us, with a small valid folder for each."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import transformers
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from schemas.job_spec import EXAMPLE, JobSpec
from schemas.refs import DataRef
from schemas.task import Task
from service.cli.documents import parse_documents
from service.cli.errors import CliError
from service.store.tensor_header import HeaderError, header_length, parse_header
from service.zoo.config import Unreadable, describe
from tests import language, onnx_models, programs, scenes, small_tasks, tiny
from workers.data.audio import open_extractor
from workers.data.load import load_bundle
from workers.data.tokenizer import open_tokenizer
from workers.errors import DataError, ModelError, PreflightError
from workers.models.load import load_model
from workers.pruning.structured.history import History, write_history
from workers.pruning.structured.records import Change, Cut, Surgery

MAX_BYTES = 256 * 2**20
"""Of a data set: what the loaders may take for samples."""
OURS = (ModelError, DataError, PreflightError)
FEW = {"train": 8, "validation": 4}

Load = Callable[[Path], object]


@dataclass(frozen=True)
class Loader:
    """What is loaded from a folder, and the exceptions that are its answer to bad input."""

    name: str
    make: Callable[[Path], Load]
    """Writes a valid folder, which is not there yet, and gives the function that loads one like it."""
    refusals: tuple[type[Exception], ...] = OURS


def _model(name: str, task: Task, seed: Callable[[Path], object]) -> Loader:
    def make(folder: Path) -> Load:
        seed(folder)
        return lambda damaged: load_model(damaged, task)

    return Loader(name, make)


def _data(
    name: str, task: Task, model: Callable[[Path], object], seed: Callable[[Path], object], **spec: object
) -> Loader:
    ref = DataRef.model_validate({"uri": "s3://data/x/", "task": task, **spec})

    def make(folder: Path) -> Load:
        seed(folder)
        beside = folder.with_name(f"{name}-model")
        model(beside)
        loaded = load_model(beside, task)
        return lambda damaged: load_bundle(damaged, ref, loaded, seed=0, max_bytes=MAX_BYTES)

    return Loader(name, make)


def _sharded(folder: Path) -> None:
    weights = load_file(tiny.vit(folder) / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _timm(folder: Path) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=tiny.CLASSES)
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args={"stem_width": 16})
    return folder


def _pruned(folder: Path) -> None:
    """Half of the neurons of one layer are gone, which the library's config cannot say."""
    tiny.bert(folder)
    layer = "bert.encoder.layer.0"
    axes = [(f"{layer}.intermediate.dense.{name}", 0) for name in ("weight", "bias")]
    axes.append((f"{layer}.output.dense.weight", 1))
    cuts = tuple(Cut(tensor=name, dim=dim, size=32, runs=((0, 8), (24, 32))) for name, dim in axes)
    changes = tuple(
        Change(module=f"{layer}.{name}.dense", attribute=attribute, value=16)
        for name, attribute in (("intermediate", "out_features"), ("output", "in_features"))
    )
    write_history(History(rounds=(Surgery(cuts=cuts, changes=changes),)), folder)
    weights = load_file(folder / "model.safetensors")
    rows = torch.tensor([*range(8), *range(24, 32)])
    for name, dim in axes:
        weights[name] = weights[name].index_select(dim, rows)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tiny.edit_json(folder / "config.json", secateur={"surgery": "surgery.json"})


def _torch_export(folder: Path) -> None:
    program = programs.exported(onnx_models.Cnn().eval(), {"image": torch.rand(3, 1, tiny.SIDE, tiny.SIDE)})
    programs.save(program, folder / "model.pt2")


def _tokenizer(folder: Path) -> Load:
    small_tasks.tokenizer().save_pretrained(folder)
    return lambda damaged: open_tokenizer(damaged)("sport1 filler2 unknown words")


def _extractor(folder: Path) -> Load:
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=small_tasks.RATE).save_pretrained(folder)
    return open_extractor


def _image_tensors(folder: Path) -> None:
    folder.mkdir()
    for split, samples in FEW.items():
        pixels, labels = tiny.images(samples)
        tensors = {"image": torch.from_numpy(pixels), "label": torch.from_numpy(labels)}
        save_file(tensors, folder / f"{split}.safetensors")


def _jpegs(folder: Path) -> None:
    for split, samples in FEW.items():
        pixels, labels = tiny.images(samples)
        cells = []
        for image in pixels:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG")
            cells.append(buffer.getvalue())
        tiny.write_parquet(folder / f"{split}.parquet", image=cells, label=labels)


def _image_tars(folder: Path) -> None:
    folder.mkdir()
    for split, samples in FEW.items():
        with tarfile.open(folder / f"{split}.tar", "w") as archive:
            for row, (image, label) in enumerate(zip(*tiny.images(samples), strict=True)):
                for kind, content in (("png", tiny.png(image)), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{row}.{kind}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


def _plain_texts(folder: Path) -> None:
    folder.mkdir()
    for split in FEW:
        (folder / f"{split}.txt").write_text("sport1 money2 film3 filler4\n" * 40)


def _language_parquet(folder: Path) -> None:
    language.text_folder(folder, train=["sport1 money2 " * 40] * 3, validation=["film1 " * 80])


def _header(folder: Path) -> Load:
    tiny.resnet(folder)
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).unlink()
    return _read_header


def _read_header(folder: Path) -> object:
    data = (folder / "model.safetensors").read_bytes()
    length = header_length(data[:8], len(data))
    return parse_header(data[8 : 8 + length], len(data))


def _config(folder: Path) -> Load:
    tiny.bert(folder)
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    return lambda damaged: describe((damaged / "config.json").read_bytes())


def _spec(folder: Path) -> Load:
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(EXAMPLE))
    return _read_spec


def _read_spec(folder: Path) -> object:
    text = (folder / "spec.json").read_bytes().decode(errors="replace")
    return [JobSpec.model_validate(one) for one in parse_documents(text, "spec.json")]


def _question_model(folder: Path) -> Path:
    return small_tasks.bert("BertForQuestionAnswering", folder)


def _llama(folder: Path) -> object:
    return language.llama(folder)


IMAGES = Task.image_classification
TEXTS = Task.text_classification
LOADERS: tuple[Loader, ...] = (
    _model("transformers", IMAGES, tiny.resnet),
    _model("transformers-text", TEXTS, tiny.bert),
    _model("transformers-language", Task.causal_lm, _llama),
    _model("transformers-segmentation", Task.segmentation, scenes.segformer),
    _model("sharded", IMAGES, _sharded),
    _model("timm", IMAGES, _timm),
    _model("torchvision", IMAGES, tiny.torchvision_folder),
    _model("pruned", TEXTS, _pruned),
    _model("torch-export", IMAGES, _torch_export),
    _model("onnx", IMAGES, onnx_models.cnn),
    Loader("tokenizer", _tokenizer),
    Loader("extractor", _extractor),
    _data("images-parquet", IMAGES, tiny.resnet, lambda folder: tiny.image_parquet(folder, **FEW)),
    _data("images-jpeg", IMAGES, tiny.resnet, _jpegs),
    _data("images-npz", IMAGES, tiny.resnet, lambda folder: tiny.image_npz(folder, **FEW)),
    _data("images-safetensors", IMAGES, tiny.resnet, _image_tensors),
    _data("images-tar", IMAGES, tiny.resnet, _image_tars),
    _data("texts-parquet", TEXTS, tiny.bert, lambda folder: tiny.text_parquet(folder, **FEW)),
    _data("language-parquet", Task.causal_lm, _llama, _language_parquet, max_length=16),
    _data("language-txt", Task.causal_lm, _llama, _plain_texts, max_length=16),
    _data("tokens-parquet", Task.token_classification, small_tasks.token_classifier, small_tasks.tagged),
    _data("answers-parquet", Task.question_answering, _question_model, small_tasks.questions, max_length=48),
    _data("pairs-parquet", Task.seq2seq_lm, small_tasks.t5, small_tasks.pairs),
    _data("audio-parquet", Task.audio_classification, small_tasks.wav2vec2, small_tasks.sounds),
    _data("masks-parquet", Task.segmentation, scenes.segformer, scenes.mask_parquet, label_column="label"),
    _data("masks-npz", Task.segmentation, scenes.segformer, scenes.mask_npz, label_column="label"),
    _data("boxes-parquet", Task.detection, scenes.yolos, scenes.box_parquet),
    Loader("header", _header, (HeaderError,)),
    Loader("config", _config, (Unreadable,)),
    Loader("spec", _spec, (CliError, ValidationError)),
)
