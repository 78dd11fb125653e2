"""What a model does, and with it its data, its loss and its metric."""

from enum import StrEnum


class Task(StrEnum):
    """What the model does, and with it the metric of floors and reports, in [0, 1], the larger the better.

    Classifiers: accuracy. Token classification: seqeval's F1. Question answering: SQuAD's F1. Regression:
    Pearson's correlation. Language models: the probability that they give to the right token, which is
    1 / perplexity. Segmentation: mean intersection over union. Detection: COCO's mean average precision.
    """

    image_classification = "image-classification"
    text_classification = "text-classification"
    token_classification = "token-classification"  # noqa: S105 - not a password
    question_answering = "question-answering"
    regression = "regression"
    causal_lm = "causal-lm"
    masked_lm = "masked-lm"
    seq2seq_lm = "seq2seq-lm"
    audio_classification = "audio-classification"
    segmentation = "segmentation"
    detection = "detection"

    @property
    def is_language_model(self) -> bool:
        """Scores are over the vocabulary, and a report says perplexity."""
        return self in _LANGUAGE_MODELS

    @property
    def classifies(self) -> bool:
        """A whole sample has one class."""
        return self in _CLASSIFIES

    @property
    def reads_images(self) -> bool:
        """Its input is always images. Regression takes what the model takes."""
        return self in _OF_IMAGES

    @property
    def reads_text(self) -> bool:
        """Its input is always text, and the model folder has a tokenizer."""
        return self in _OF_TEXT

    @property
    def metric_name(self) -> str:
        """The metric, for a reader."""
        return _METRICS.get(self, "top-1 accuracy")

    @property
    def input_column(self) -> str:
        """The column of the inputs, where the spec names none."""
        return _INPUTS.get(self, "text" if self.reads_text else "image")

    @property
    def label_column(self) -> str:
        """The column of the labels, where the spec names none, as the hub's data sets have it."""
        return _LABELS.get(self, "label")


_LANGUAGE_MODELS = frozenset({Task.causal_lm, Task.masked_lm, Task.seq2seq_lm})
_CLASSIFIES = frozenset({Task.image_classification, Task.text_classification, Task.audio_classification})
_OF_TEXT = _LANGUAGE_MODELS | {Task.text_classification, Task.token_classification, Task.question_answering}
_OF_IMAGES = frozenset({Task.image_classification, Task.segmentation, Task.detection})
_METRICS = {
    Task.token_classification: "F1 (seqeval)",
    Task.question_answering: "F1 (SQuAD)",
    Task.regression: "Pearson correlation",
    Task.causal_lm: "token probability",
    Task.masked_lm: "token probability",
    Task.seq2seq_lm: "token probability",
    Task.segmentation: "mean IoU",
    Task.detection: "mAP",
}
_INPUTS = {
    Task.token_classification: "tokens",
    Task.question_answering: "question",
    Task.audio_classification: "audio",
}
_LABELS = {
    Task.token_classification: "ner_tags",
    Task.question_answering: "answers",
    Task.seq2seq_lm: "target",
    Task.detection: "objects",
}
