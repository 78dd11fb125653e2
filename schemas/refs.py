"""The model and the data of a job: where they are, and how to read them."""

from pydantic import Field, model_validator

from schemas.base import S3Model, S3Prefix, Spec
from schemas.task import Task

AGREEMENT = "agreement with the dense model on synthetic inputs"
_SYNTHETIC = (Task.image_classification, Task.text_classification, Task.causal_lm, Task.masked_lm)


class ModelRef(Spec):
    """A folder in the layout of the Hugging Face hub, or a `torch.export` archive or ONNX file."""

    uri: S3Model = Field(
        description="A folder with `config.json` and `*.safetensors`, or a single `.pt2` or `.onnx` file.",
        examples=["s3://zoo/fashion-resnet/", "s3://zoo/fashion-resnet.pt2"],
    )


class DataRef(Spec):
    """A folder with the splits `train` and `validation`, or `synthetic: true` where there is no data."""

    uri: S3Prefix | None = Field(
        None,
        description="Parquet, WebDataset tar, text, `.npz` or safetensors files.",
        examples=["s3://data/fashion-mnist/"],
    )
    synthetic: bool = Field(
        False,
        description="There is no labelled data: random inputs, judged by how often the pruned model answers "
        "as the dense one does. For pruning that needs no data; it says nothing about accuracy.",
    )
    task: Task = Task.image_classification
    plugin: str | None = Field(
        None,
        max_length=64,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="Entry point of the group `secateur.tasks` whose loss and metric stand in the place of "
        "the task's own: a package that the operator has installed in the workers' image.",
    )
    input_column: str | None = Field(
        None,
        max_length=128,
        description="Column of the inputs. Null, by the task: 'image', 'text', 'tokens', 'audio', or "
        "'question', whose text is in 'context'.",
    )
    label_column: str | None = Field(
        None,
        max_length=128,
        description="Column of the labels. Null, by the task: 'label', 'ner_tags', 'answers', 'target' or "
        "'objects'.",
    )
    max_length: int = Field(
        128,
        ge=1,
        le=8192,
        description="Tokens of a text; longer ones are cut, or for questions read in windows.",
    )
    max_seconds: float = Field(10.0, ge=0.1, le=60, description="Of a sound; longer ones are cut.")
    max_train_samples: int | None = Field(
        None, ge=1, description="Use this many training samples, drawn with the seed. Null: all."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "DataRef":
        if self.synthetic == (self.uri is not None):
            raise ValueError(
                "give data.uri, or data.synthetic: true where there is no data"
                if self.uri is None
                else "data.synthetic is for jobs without data: leave out data.uri, or data.synthetic"
            )
        if self.synthetic and self.plugin is not None:
            raise ValueError(
                f"data.synthetic has one metric, {AGREEMENT}: leave out data.plugin, or give data.uri"
            )
        if self.synthetic and self.task not in _SYNTHETIC:
            raise ValueError(
                f"data.synthetic makes inputs for the tasks {', '.join(_SYNTHETIC)}, not for '{self.task}': "
                "give data.uri"
            )
        return self

    @property
    def input_name(self) -> str:
        """The column of the inputs."""
        return self.input_column or self.task.input_column

    @property
    def label_name(self) -> str:
        """The column of the labels."""
        return self.label_column or self.task.label_column
