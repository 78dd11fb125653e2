"""What a model does, and with it its data, its loss and its metric."""

from enum import StrEnum


class Task(StrEnum):
    """What the model does, and with it the metric: top-1 accuracy of a classifier; of a language model the
    probability that it gives to the token that comes, which is 1 / perplexity."""

    image_classification = "image-classification"
    text_classification = "text-classification"
    causal_lm = "causal-lm"

    @property
    def reads_text(self) -> bool:
        """Its input is text, and the model folder has a tokenizer."""
        return self is not Task.image_classification

    @property
    def metric_name(self) -> str:
        """The metric, for a reader."""
        return "token probability" if self is Task.causal_lm else "top-1 accuracy"

    @property
    def input_column(self) -> str:
        """The column of the inputs, where the spec names none."""
        return "text" if self.reads_text else "image"
