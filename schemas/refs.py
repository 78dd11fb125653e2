"""The model and the data of a job: where they are, and how to read them."""

from pydantic import Field

from schemas.base import S3Prefix, Spec
from schemas.task import Task


class ModelRef(Spec):
    """A folder in the layout of the Hugging Face hub: `config.json` and `*.safetensors`."""

    uri: S3Prefix = Field(examples=["s3://zoo/fashion-resnet/"])


class DataRef(Spec):
    """A folder with the splits `train` and `validation`, as parquet or `.npz`."""

    uri: S3Prefix = Field(examples=["s3://data/fashion-mnist/"])
    task: Task = Task.image_classification
    input_column: str | None = Field(
        None,
        max_length=128,
        description="Column of the inputs. Null: 'image', 'text', or what the hub's data sets have.",
    )
    label_column: str | None = Field(
        None,
        max_length=128,
        description="Column of the labels. Null: 'label', or what the hub's data sets have.",
    )
    max_length: int = Field(128, ge=1, le=8192, description="Tokens of a text; longer ones are cut.")
    max_train_samples: int | None = Field(
        None, ge=1, description="Use this many training samples, drawn with the seed. Null: all."
    )

    @property
    def input_name(self) -> str:
        """The column of the inputs."""
        return self.input_column or self.task.input_column

    @property
    def label_name(self) -> str:
        """The column of the labels."""
        return self.label_column or self.task.label_column
