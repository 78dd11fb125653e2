"""Specs from files: YAML or JSON, one or several documents, with `--set` on top."""

import copy
import json
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from service.cli.errors import CliError, ExitCode

Document = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may stand once only, and a date stays the text that was written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_documents(source: str, overrides: Sequence[str]) -> list[Document]:
    """All specs of a file, or of stdin for `-`, each with the overrides applied. Raises CliError."""
    name = "standard input" if source == "-" else source
    documents = parse_documents(_text(source), name)
    return [override(document, overrides) for document in documents]


def parse_documents(text: str, name: str) -> list[Document]:
    """The specs in a text: YAML documents, one JSON object, or a list of either. Raises CliError."""
    try:
        parsed = [json.loads(text)] if text.lstrip()[:1] in ("{", "[") else list(_yaml(text))
    except json.JSONDecodeError as json_error:
        try:
            parsed = list(_yaml(text))  # YAML's own braces
        except (yaml.YAMLError, RecursionError, ValueError):
            raise _unreadable(name, str(json_error)) from json_error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _unreadable(name, str(error)) from error
    flat = [item for one in parsed if one is not None for item in (one if isinstance(one, list) else [one])]
    for number, item in enumerate(flat, 1):
        if not isinstance(item, dict):
            raise _unreadable(name, f"document {number} is a {type(item).__name__}, not a mapping")
    if not flat:
        raise _unreadable(name, "it is empty")
    return flat


def override(document: Document, overrides: Sequence[str]) -> Document:
    """A copy in which each `path.to.field=value` is set; values are YAML. Raises CliError."""
    changed = copy.deepcopy(document)
    for text in overrides:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise CliError(
                f"--set {text}: not an override.", ExitCode.usage, remedy="Write --set goal.sparsity=0.9."
            )
        _assign(changed, keys, _value(text, value), text)
    return changed


def _assign(document: Document, keys: list[str], value: Any, text: str) -> None:
    place = document
    for depth, key in enumerate(keys[:-1], 1):
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise CliError(
                f"--set {text}: '{'.'.join(keys[:depth])}' is not a mapping.",
                ExitCode.usage,
                remedy="Set the whole field instead.",
            )
    place[keys[-1]] = value


def _value(text: str, value: str) -> Any:
    try:
        return yaml.load(value, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise CliError(f"--set {text}: the value is not YAML.", ExitCode.usage, str(error)) from error


def _yaml(text: str) -> Any:
    return yaml.load_all(text, _Loader)


def _text(source: str) -> str:
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{source} cannot be read.", ExitCode.usage, f"{error}.") from error


def _unreadable(name: str, why: str) -> CliError:
    return CliError(
        f"{name} is not a spec.", ExitCode.usage, why, "A spec is YAML or JSON: see `secateur submit --help`."
    )
