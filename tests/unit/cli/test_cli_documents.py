"""Specs from files and `--set`."""

import io
from pathlib import Path

import pytest

from service.cli.documents import override, parse_documents, read_documents
from service.cli.errors import CliError, ExitCode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n---\na: 2\n", [{"a": 1}, {"a": 2}]),
        ("---\na: 1\n---\n", [{"a": 1}]),
        ("- a: 1\n- a: 2\n", [{"a": 1}, {"a": 2}]),
        ('{"a": 1}', [{"a": 1}]),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('{\n\t"a": 1\n}', [{"a": 1}]),
        ("{a: 1}", [{"a": 1}]),
    ],
)
def test_every_document_of_yaml_and_json_is_a_spec(text: str, expected: list[dict[str, int]]):
    assert parse_documents(text, "f") == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("a: 1\na: 2\n", "'a' stands twice"),
        ("x: {a: 1, a: 2}\n", "'a' stands twice"),
        ("just words", "document 1 is a str, not a mapping"),
        ("a: 1\n---\n3\n", "document 2 is a int, not a mapping"),
        ("a: [1\n", "expected"),
        ('{"a": }', "Expecting value"),
        ("a: !!python/object:os.system {}\n", "could not determine a constructor"),
    ],
)
def test_refuses_what_is_no_spec_and_says_why(text: str, why: str):
    if text == '{"a": }':  # YAML reads this as a null
        assert parse_documents(text, "f") == [{"a": None}]
        return

    with pytest.raises(CliError, match=r"f is not a spec") as caught:
        parse_documents(text, "f")

    assert why in caught.value.why
    assert caught.value.code is ExitCode.usage


def test_a_date_stays_the_text_that_was_written():
    assert parse_documents("tags: [2026-01-01]", "f") == [{"tags": ["2026-01-01"]}]


def test_set_reaches_into_the_document_and_makes_what_is_missing():
    changed = override(
        {"goal": {"sparsity": 0.5}}, ["goal.sparsity=0.9", "fine_tune.epochs=0", "tags=[a, b]"]
    )

    assert changed == {"goal": {"sparsity": 0.9}, "fine_tune": {"epochs": 0}, "tags": ["a", "b"]}


def test_set_leaves_the_original_as_it_was():
    original = {"goal": {"sparsity": 0.5}}

    override(original, ["goal.sparsity=0.9"])

    assert original == {"goal": {"sparsity": 0.5}}


@pytest.mark.parametrize("text", ["goal.sparsity", "=1", "goal..x=1", "model.uri.x=1", "a=[1"])
def test_refuses_an_override_that_cannot_be_applied(text: str):
    with pytest.raises(CliError, match=r"--set") as caught:
        override({"model": {"uri": "s3://zoo/x/"}}, [text])

    assert caught.value.code is ExitCode.usage


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a: 1"))

    assert read_documents("-", ["b=2"]) == [{"a": 1, "b": 2}]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "spec.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(CliError, match=r"spec\.yaml cannot be read"):
        read_documents(str(path), [])
