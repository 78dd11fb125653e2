"""What a config.json says about a model, and why it may not be readable."""

import re
from typing import Any

import pytest

from schemas.task import Task
from service.zoo.config import describe
from tests.zoo import BERT, RESNET, config


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("ViTForImageClassification", Task.image_classification),
        ("DeiTForImageClassificationWithTeacher", Task.image_classification),
        ("DistilBertForSequenceClassification", Task.text_classification),
        ("BertForTokenClassification", Task.token_classification),
        ("BertForQuestionAnswering", Task.question_answering),
        ("LlamaForCausalLM", Task.causal_lm),
        ("GPT2LMHeadModel", Task.causal_lm),
        ("T5ForConditionalGeneration", Task.seq2seq_lm),
        ("BertForMaskedLM", Task.masked_lm),
        ("ASTForAudioClassification", Task.audio_classification),
        ("SegformerForSemanticSegmentation", Task.segmentation),
        ("DetrForObjectDetection", Task.detection),
    ],
)
def test_the_head_says_the_task(architecture: str, task: Task):
    found = describe(config(architectures=[architecture]))

    assert (found.library, found.architecture, found.tasks) == ("transformers", architecture, (task,))
    assert found.reason is None


@pytest.mark.parametrize("change", [{"problem_type": "regression"}, {"id2label": {"0": "LABEL_0"}}])
def test_a_head_with_one_output_is_a_regression(change: dict[str, Any]):
    assert describe(config(BERT, **change)).tasks == (Task.regression,)


def test_an_audio_model_with_a_head_called_like_that_of_texts_hears():
    hears = config(architectures=["Wav2Vec2ForSequenceClassification"], model_type="wav2vec2")

    assert describe(hears).tasks == (Task.audio_classification,)


def test_without_architectures_the_task_is_not_known():
    found = describe(b'{"model_type": "bert"}')

    assert (found.architecture, found.tasks, found.reason) == ("bert", (), None)


def test_timm_and_torchvision_say_their_own_names():
    timm = describe(b'{"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {}}')
    classifier = describe(b'{"library_name": "torchvision", "architecture": "resnet18"}')
    segments = describe(b'{"library_name": "torchvision", "architecture": "fcn_resnet50"}')
    detects = describe(b'{"library_name": "torchvision", "architecture": "ssdlite320_mobilenet_v3_large"}')

    assert (timm.library, timm.architecture, timm.tasks) == ("timm", "resnet18", (Task.image_classification,))
    assert (classifier.library, classifier.tasks) == ("torchvision", (Task.image_classification,))
    assert (segments.tasks, detects.tasks) == ((Task.segmentation,), (Task.detection,))


def test_a_cut_model_names_its_history():
    assert describe(config(secateur={"surgery": "surgery.json"})).surgery
    assert not describe(config()).surgery


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (config(auto_map={"AutoModel": "x.Y"}), "'auto_map' asks for Python code .* delete 'auto_map'"),
        (config(text={"deep": [{"auto_map": {}}]}), "'auto_map'"),
        (config(attn_implementation="some/kernel"), "'attn_implementation' asks for code from a repository"),
        (
            config(quantization_config={"bits": 4}),
            "'quantization_config' says that the weights are quantized",
        ),
        (config(architectures=["BertModel"]), "'BertModel' has no head for audio-classification, "),
        (config(library_name="keras"), "'library_name' is 'keras': use transformers, timm or torchvision"),
        (b"{}", "names no architecture: add 'model_type'"),
        (b'{"library_name": "timm"}', "names no architecture: add 'architecture', as timm writes it"),
        (config(architectures=[3]), "names no architecture"),
        (b"", "not valid JSON"),
        (b"[1]", "holds a list where a JSON object should be"),
        (b"\xff\xfe{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "names no architecture|nested too deeply|not valid JSON"),
    ],
)
def test_what_keeps_a_model_from_being_loaded_is_said(content: bytes, reason: str):
    found = describe(content)

    assert found.reason is not None
    assert re.search(reason, found.reason), found.reason


def test_what_is_known_is_told_although_the_model_is_refused():
    found = describe(config(RESNET, auto_map={}))

    assert (found.architecture, found.tasks) == ("ResNetForImageClassification", (Task.image_classification,))
