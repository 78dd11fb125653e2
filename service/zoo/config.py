"""What a model's `config.json` says: library, architecture, tasks, and what keeps it from being loaded."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from schemas.task import Task

MAX_CONFIG_BYTES = 2**20
LIBRARIES = ("transformers", "timm", "torchvision")

_CODE_KEYS = ("trust_remote_code", "custom_pipelines")
_KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation")
_HEADS = {
    "ForImageClassification": Task.image_classification,
    "ForImageClassificationWithTeacher": Task.image_classification,
    "ForSequenceClassification": Task.text_classification,
    "ForTokenClassification": Task.token_classification,
    "ForQuestionAnswering": Task.question_answering,
    "ForCausalLM": Task.causal_lm,
    "LMHeadModel": Task.causal_lm,
    "ForConditionalGeneration": Task.seq2seq_lm,
    "ForMaskedLM": Task.masked_lm,
    "ForAudioClassification": Task.audio_classification,
    "ForSemanticSegmentation": Task.segmentation,
    "ForObjectDetection": Task.detection,
}
"""What transformers calls a head, and the task of it."""
_HEARS = ("wav2vec2", "hubert", "wavlm", "whisper", "sew", "unispeech", "data2vec-audio")
"""Audio models, by the beginning of model_type: their head is called like that of texts."""
_TORCHVISION = {
    Task.segmentation: ("fcn_", "deeplabv3_", "lraspp_"),
    Task.detection: ("fasterrcnn_", "maskrcnn_", "keypointrcnn_", "retinanet_", "fcos_", "ssd"),
}
"""torchvision's architectures that are no classifiers, by the beginning of their names."""


class Unreadable(Exception):
    """No job can use the model. The message names the file, the cause and the remedy."""


@dataclass(frozen=True)
class Described:
    """What a config says. `reason`: why no job can use the model, though the rest is known."""

    library: str | None = None
    architecture: str | None = None
    tasks: tuple[Task, ...] = ()
    reason: str | None = None
    surgery: bool = False
    """It names a history of cuts, which must lie beside it."""


def describe(content: bytes, plugins: Collection[str] = ()) -> Described:
    """The config in `content`. Never raises: what is wrong with it is the answer's `reason`.

    `plugins`: the libraries that operators added to their workers, whose tasks are not known.
    """
    try:
        config = _parsed(content)
        entries = list(_entries(config))
    except Unreadable as error:
        return Described(reason=str(error))
    except RecursionError:
        return Described(reason="config.json is nested too deeply: upload the file again")
    library = _library(config)
    architecture = _architecture(config, library)
    tasks: tuple[Task, ...] = ()
    try:
        if library in LIBRARIES or library not in plugins:
            tasks = _tasks(config, library, architecture)
        _refuse_code(entries)
        _refuse_quantized(config)
    except Unreadable as error:
        return Described(library, architecture, tasks, str(error))
    return Described(library, architecture, tasks, None, "secateur" in config)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"config.json is not valid JSON ({error}): upload the file again") from error
    if not isinstance(config, dict):
        raise Unreadable(f"config.json holds a {type(config).__name__} where a JSON object should be")
    return config


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _refuse_code(entries: list[tuple[str, Any]]) -> None:
    for key, value in entries:
        if key == "auto_map":
            raise Unreadable(
                "config.json: 'auto_map' asks for Python code from the model folder, which is never run: "
                "use an architecture that transformers has itself and delete 'auto_map'"
            )
        if key in _CODE_KEYS and value:
            raise Unreadable(f"config.json: '{key}' asks for Python code, which is never run: delete '{key}'")
        if key in _KERNEL_KEYS and "/" in str(value):
            raise Unreadable(
                f"config.json: '{key}' asks for code from a repository ({str(value)[:100]}): delete '{key}'"
            )


def _refuse_quantized(config: dict[str, Any]) -> None:
    if config.get("quantization_config"):
        raise Unreadable(
            "config.json: 'quantization_config' says that the weights are quantized: "
            "give the model before quantization, in float32, float16 or bfloat16"
        )


def _library(config: dict[str, Any]) -> str:
    """timm's own files do not always name it."""
    is_timm = "model_type" not in config and {"architecture", "pretrained_cfg"} <= config.keys()
    return str(config.get("library_name", "timm" if is_timm else "transformers"))[:100]


def _architecture(config: dict[str, Any], library: str) -> str | None:
    if library != "transformers":
        named = config.get("architecture")
    else:
        listed = config.get("architectures")
        named = listed[0] if isinstance(listed, list) and listed else config.get("model_type")
    return named[:200] if isinstance(named, str) else None


def _tasks(config: dict[str, Any], library: str, architecture: str | None) -> tuple[Task, ...]:
    if library not in LIBRARIES:
        raise Unreadable(f"config.json: 'library_name' is {library!r}: use {_either(LIBRARIES)}")
    if architecture is None:
        key = "model_type" if library == "transformers" else "architecture"
        raise Unreadable(f"config.json names no architecture: add '{key}', as {library} writes it")
    if library == "transformers":
        return _tasks_of_transformers(config, architecture)
    if library == "torchvision":
        for task, beginnings in _TORCHVISION.items():
            if architecture.startswith(beginnings):
                return (task,)
    return (Task.image_classification,)


def _tasks_of_transformers(config: dict[str, Any], architecture: str) -> tuple[Task, ...]:
    if not config.get("architectures"):
        return ()  # the weights decide, and they are not looked at
    task = next((_HEADS[head] for head in _HEADS if architecture.endswith(head)), None)
    if task is None:
        raise Unreadable(
            f"config.json: '{architecture}' has no head for {_either(sorted(Task))}: "
            "give a model that was trained for one of these tasks"
        )
    if task is Task.text_classification and str(config.get("model_type")).startswith(_HEARS):
        return (Task.audio_classification,)
    if task in (Task.text_classification, Task.image_classification) and _has_one_output(config):
        return (Task.regression,)
    return (task,)


def _has_one_output(config: dict[str, Any]) -> bool:
    names = config.get("id2label")
    return config.get("problem_type") == "regression" or (isinstance(names, dict) and len(names) == 1)


def _either(names: Iterable[str]) -> str:
    *most, last = map(str, names)
    return f"{', '.join(most)} or {last}"
