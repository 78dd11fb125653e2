"""What a model's own files say about the images it takes: size, crop, scale, mean and standard deviation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.errors import ModelError
from workers.models.folder import CONFIG, PREPROCESSOR, library_of, read_config, read_json

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BILINEAR = 2
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": _BILINEAR, "bicubic": 3, "box": 4, "hamming": 5}
"""Pillow's numbers."""
_TORCHVISION: dict[str, dict[str, Any]] = {
    "ssd300_vgg16": {
        "input_size": [3, 300, 300],
        "mean": [0.48235, 0.45882, 0.40784],
        "std": [1 / 255, 1 / 255, 1 / 255],
    },
    "ssdlite320_mobilenet_v3_large": {
        "input_size": [3, 320, 320],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
}
"""What torchvision's detectors do to images themselves, where it is not the usual."""
_NOT_CROPPED = 384
"""From this size on transformers' ConvNext processor squeezes images and cuts nothing off."""
_LARGEST = 1e9
"""Of a mean or standard deviation, whose pixels are at most 255."""
_RANGES = {"resample": (0, 5), "rescale_factor": (0, 1), "crop_pct": (0.1, 1)}


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded image to the model's input: resize, crop, then `(value * scale - mean) / std`."""

    size: tuple[int, int] | None
    """Height and width; None: images are taken as they are."""
    crop: float | None
    """Share of each side that a centre crop keeps; None: the image is squeezed to `size`, nothing is cut."""
    resample: int
    """Pillow's number of the resampling filter."""
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    squeezes: bool = False
    """Before the crop both sides are resized, not the shorter one."""
    rounds: bool = True
    """Where the centre lies between two pixels: as torchvision rounds, or down, as transformers does."""

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the centre that stays of an image of this size."""
        assert self.size is not None
        spare = (height - self.size[0], width - self.size[1])
        top, left = (round(one / 2) if self.rounds else one // 2 for one in spare)
        return top, left

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image before the crop: the model's size where nothing is cut, else what
        covers the size divided by the share that the crop keeps."""
        assert self.size is not None
        if self.crop is None:
            return self.size
        whole = [max(side, int(side / self.crop + 1e-6)) for side in self.size]
        if self.squeezes:
            return whole[0], whole[1]
        if whole[0] * width >= whole[1] * height:
            return whole[0], max(self.size[1], int(whole[0] * width / height))
        return max(self.size[0], int(whole[1] * height / width)), whole[1]


def read_preprocessing(folder: Path, channels: int) -> Preprocessing:
    """From `preprocessor_config.json` and `config.json`; what they leave out has the usual defaults.

    Those are ImageNet's mean and standard deviation for three channels, and 0.5 for others; beside an ONNX
    file or a torch.export archive, whose library nobody knows, 0 and 1.
    """
    config = read_config(folder)
    library = library_of(config)
    if library not in ("transformers", "timm", "torch.export", "onnx"):  # torchvision, or a plug-in
        stated_by_library = _TORCHVISION.get(str(config.get("architecture")), {})
        return _of_one_config({**stated_by_library, **config}, channels)
    if library == "timm":
        return _of_one_config(config.get("pretrained_cfg") or {}, channels)
    stated = read_json(folder, PREPROCESSOR)
    if stated is None and library == "torch.export" and "model_type" not in config:
        return _of_one_config({"mean": 0.0, "std": 1.0, **config}, channels)
    if stated is None and library == "onnx":
        size = _pair(config.get("image_size"), CONFIG)
        return Preprocessing(size, 1.0, _BILINEAR, 1 / 255, (0.0,) * channels, (1.0,) * channels)
    if stated is None:
        mean, std = _defaults(channels)
        return Preprocessing(_pair(config.get("image_size"), CONFIG), 1.0, _BILINEAR, 1 / 255, mean, std)
    mean, std = _normalization(stated, channels)
    return Preprocessing(
        size=_pair(config.get("image_size"), CONFIG) or _stated_size(stated),
        crop=_crop(stated),
        resample=int(_number(stated, "resample", _BILINEAR, PREPROCESSOR)),
        scale=_number(stated, "rescale_factor", 1 / 255, PREPROCESSOR)
        if stated.get("do_rescale", True)
        else 1.0,
        mean=mean,
        std=std,
        rounds=False,
        squeezes=isinstance(stated.get("size"), Mapping) and "shortest_edge" not in stated["size"],
    )


def _of_one_config(stated: Mapping[str, Any], channels: int) -> Preprocessing:
    """Our own for torchvision and plug-ins, and timm's `pretrained_cfg`, which has the same names."""
    if not isinstance(stated, Mapping):
        raise ModelError("config.json: 'pretrained_cfg' must be an object")
    size = stated.get("input_size")
    if size is not None and not (isinstance(size, list) and len(size) == 3):
        raise ModelError("config.json: 'input_size' must be [channels, height, width]")
    mean, std = _defaults(channels)
    squash = stated.get("crop_mode") == "squash"
    return Preprocessing(
        size=_pair(size[1:], CONFIG) if size else None,
        crop=None if squash else _number(stated, "crop_pct", 1.0, CONFIG),
        resample=_filter(stated.get("interpolation", "bilinear")),
        scale=1 / 255,
        mean=_floats(stated.get("mean", mean), "mean", CONFIG, channels),
        std=_floats(stated.get("std", std), "std", CONFIG, channels),
    )


def _filter(name: object) -> int:
    if name not in _FILTERS:
        raise ModelError(f"config.json: 'interpolation' is {name!r}: give one of {', '.join(_FILTERS)}")
    return _FILTERS[str(name)]


def _normalization(stated: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not stated.get("do_normalize", True):
        return (0.0,) * channels, (1.0,) * channels
    mean, std = _defaults(channels)
    return (
        _floats(stated.get("image_mean", mean), "image_mean", PREPROCESSOR, channels),
        _floats(stated.get("image_std", std), "image_std", PREPROCESSOR, channels),
    )


def _defaults(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (0.5,) * channels, (0.5,) * channels


def _floats(value: object, key: str, file: str, channels: int) -> tuple[float, ...]:
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * channels
    if len(values) != channels or not all(_is_number(item) for item in values):
        raise ModelError(
            f"{file}: '{key}' is {value}, but the model takes {channels} channels: give one each"
        )
    numbers = tuple(float(item) for item in values)
    if key.endswith("std") and not all(number > 0 for number in numbers):
        raise ModelError(f"{file}: '{key}' is {value}: a standard deviation must be above zero")
    return numbers


def _number(stated: Mapping[str, Any], key: str, default: float, file: str) -> float:
    value = stated.get(key)
    if value is None:
        return default
    lowest, highest = _RANGES[key]
    if not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ModelError(f"{file}: '{key}' is {value!r}: give a number from {lowest} to {highest}")
    return float(value)


def _stated_size(stated: Mapping[str, Any]) -> tuple[int, int] | None:
    if stated.get("do_center_crop") and stated.get("crop_size"):
        return _pair(stated["crop_size"], PREPROCESSOR)
    return _pair(stated.get("size"), PREPROCESSOR) if stated.get("do_resize", True) else None


def _crop(stated: Mapping[str, Any]) -> float | None:
    """Processors that state the shortest edge cut the rest away; those that state both sides squeeze."""
    size = stated.get("size")
    if isinstance(size, Mapping) and "shortest_edge" not in size and not stated.get("do_center_crop"):
        return None
    if str(stated.get("image_processor_type", "")).startswith("ConvNext") and _edge(size) >= _NOT_CROPPED:
        return None
    crop_size, edge = _pair(stated.get("crop_size"), PREPROCESSOR), _pair(size, PREPROCESSOR)
    if stated.get("do_center_crop") and crop_size and edge:
        return min(1.0, crop_size[0] / edge[0])
    return _number(stated, "crop_pct", 1.0, PREPROCESSOR)


def _edge(size: object) -> int:
    side = size.get("shortest_edge") if isinstance(size, Mapping) else size
    return side if isinstance(side, int) else 0


def _pair(value: object, file: str) -> tuple[int, int] | None:
    """Height and width from the four ways in which the hub writes a size."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        edge = value.get("shortest_edge")
        value = [value.get("height", edge), value.get("width", edge)]
    sides = [value, value] if isinstance(value, int) else value
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(_is_side(side) for side in sides):
        return int(sides[0]), int(sides[1])
    raise ModelError(f"{file}: cannot read {value} as an image size: give a height and a width")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST  # so neither NaN nor infinite


def _is_side(value: object) -> bool:
    return isinstance(value, int) and 0 < value <= 16_384
