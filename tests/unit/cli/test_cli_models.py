"""How `secateur models` shows a zoo."""

import io

from rich.console import Console

from schemas.zoo import ModelKind, ZooModel
from service.cli.models import models_table

RESNET = ZooModel(
    uri="s3://zoo/team/resnet/",
    kind=ModelKind.folder,
    library="timm",
    architecture="resnet18",
    tasks=["image-classification"],
    parameters=11_689_512,
    bytes=46_758_048,
    dtypes={"F32": 11_689_492, "I64": 20},
    readable=True,
)
OLD = ZooModel(
    uri="s3://zoo/old/", kind=ModelKind.folder, bytes=0, readable=False, reason="the weights are in a pickle"
)


def shown(*models: ZooModel, uri: str = "s3://zoo/", width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(models_table(models, uri))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_says_what_a_model_is():
    [line] = [line for line in shown(RESNET).splitlines() if "team/resnet/" in line]

    assert line.split() == [
        "team/resnet/",
        "timm",
        "resnet18",
        "image-classification",
        "11,689,512",
        *("46.8", "MB"),
        "F32",
        "yes",
    ]


def test_what_is_not_readable_says_why_below_the_table():
    text = shown(RESNET, OLD)

    assert "old/: the weights are in a pickle" in text
    assert text.index("team/resnet/") < text.index("Not readable") < text.index("old/: ")


def test_the_last_line_adds_up():
    assert shown(RESNET, OLD).splitlines()[-1] == (
        "2 models (1 timm, 1 unknown), 1 readable; 11,689,512 parameters, 46.8 MB"
    )


def test_names_are_relative_to_the_prefix_with_and_without_its_slash():
    assert "\nresnet/ " in shown(RESNET, uri="s3://zoo/team")
    assert "\nresnet/ " in shown(RESNET, uri="s3://zoo/team/")
    assert "s3://zoo/team/resnet/" in shown(RESNET, uri="s3://zoo/team/resnet/")


def test_an_empty_prefix_is_said():
    assert shown(uri="s3://zoo/nothing/") == "No models under s3://zoo/nothing/.\n"


def test_what_moves_the_cursor_is_not_printed():
    evil = OLD.model_copy(update={"uri": "s3://zoo/a\x1b[2J\n/", "reason": "x\x1b[1A", "library": "[red]\r"})

    text = shown(evil)

    assert "\x1b" not in text
    assert "a?[2J?/" in text
    assert "[red]?" in text
