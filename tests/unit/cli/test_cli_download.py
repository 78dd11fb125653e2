"""Which artifacts, and where to."""

from pathlib import Path

import pytest

from schemas.artifact import Artifact
from service.cli.download import chosen, target
from service.cli.errors import CliError, ExitCode

FILES = [Artifact(name=name, bytes=1, sha256="0", media_type="x/y") for name in ("model.onnx", "report.json")]


def test_without_names_all_files_are_chosen():
    assert chosen(FILES, []) == FILES


def test_with_names_only_those_in_their_order():
    assert [one.name for one in chosen(FILES, ["report.json", "model.onnx"])] == ["report.json", "model.onnx"]


def test_a_wrong_name_is_told_with_the_right_ones():
    with pytest.raises(CliError, match=r"no artifact 'x'.*model\.onnx, report\.json") as caught:
        chosen(FILES, ["x"])

    assert caught.value.code is ExitCode.not_found


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "..\\x"])
def test_a_name_that_leaves_the_folder_is_refused(name: str):
    with pytest.raises(CliError, match=r"not the name of a file"):
        target(Path("out"), name)


def test_a_name_may_have_folders():
    assert target(Path("out"), "a/b.bin") == Path("out/a/b.bin")
