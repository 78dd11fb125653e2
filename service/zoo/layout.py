"""Which objects of a listing make models: folders with weights or a config, and single files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.zoo import ModelKind
from service.store.blobs import Blob

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SURGERY = "surgery.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

_NOT_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler", "trainer_state")
_SPLITS = ("train", "validation", "calibration", "test")
_SINGLE_FILES = {".pt2": ModelKind.torch_export, ".onnx": ModelKind.onnx}
_EXTERNAL = (".data", "_data")
"""What exporters append to an ONNX file's name for weights outside it."""


@dataclass(frozen=True)
class Candidate:
    """What looks like a model; `files` are a folder's own ones by name, or the file with its companions."""

    uri: str
    kind: ModelKind
    files: Mapping[str, Blob]

    def weights(self) -> list[Blob]:
        """The files of a folder that hold tensors, whether they can be read or not."""
        names = [name for name in self.files if is_safetensors(name)] or pickles(self.files)
        return [self.files[name] for name in names]


def candidates(bucket: str, blobs: Iterable[Blob]) -> list[Candidate]:
    """All models of a listing, by uri."""
    folders: dict[str, dict[str, Blob]] = {}
    for blob in blobs:
        folder, _, name = blob.key.rpartition("/")
        if name:
            folders.setdefault(folder, {})[name] = blob
    found: list[Candidate] = []
    for folder, files in folders.items():
        base = f"s3://{bucket}/{folder}/" if folder else f"s3://{bucket}/"
        singles = [name for name in files if name.endswith(tuple(_SINGLE_FILES))]
        if _is_model_folder(files, has_singles=bool(singles)):
            found.append(Candidate(base, ModelKind.folder, files))
        for name in singles:
            with_external = (name, *(name + end for end in _EXTERNAL))
            own = {one: files[one] for one in with_external if one in files}
            found.append(Candidate(base + name, _SINGLE_FILES[name[name.rindex(".") :]], own))
    return sorted(found, key=lambda one: one.uri)


def pickles(files: Iterable[str]) -> list[str]:
    """The names that look like weights in a pickle; what a trainer leaves beside them is none."""
    return sorted(
        name
        for name in files
        if _suffix(name) in PICKLES and not name.lower().startswith(_NOT_WEIGHTS) and not _is_split(name)
    )


def is_safetensors(name: str) -> bool:
    """Whether the name is one of weights; a split of a data set may be in safetensors too."""
    return name.endswith(".safetensors") and not _is_split(name)


def _is_model_folder(files: Mapping[str, Blob], *, has_singles: bool) -> bool:
    if INDEX in files or pickles(files) or any(is_safetensors(name) for name in files):
        return True
    # a config beside an .onnx or .pt2 file belongs to that
    return CONFIG in files and not has_singles


def _is_split(name: str) -> bool:
    """`train.bin`, `validation-00000-of-00002.safetensors`."""
    return name.partition(".")[0].partition("-")[0].lower() in _SPLITS


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2].lower() if "." in name else ""
