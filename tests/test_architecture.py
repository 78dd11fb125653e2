"""The rules of the layout, held by machine: who may import whom, and how large things may grow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "service", "workers")
MAX_LINES, MAX_TEST_LINES, MAX_FUNCTION_LINES = 400, 600, 60
MAY_IMPORT = {
    "schemas": {"schemas"},
    "service": {"schemas", "service"},
    "workers": {"schemas", "service", "workers"},
}
STANDARD_OR_PYDANTIC = sys.stdlib_module_names | {"pydantic", "pydantic_core"}
MAY_READ_ENVIRONMENT = "settings.py"


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """The dotted names of all modules that `path` imports, also inside functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way_only(package: str):
    wrong = [
        (where(path), name)
        for path in modules(package)
        for name in imports(path)
        if name.partition(".")[0] in {*PACKAGES, "tests"} - MAY_IMPORT[package]
    ]

    assert wrong == []


def test_schemas_need_nothing_but_pydantic():
    wrong = [
        (where(path), name)
        for path in modules("schemas")
        for name in imports(path)
        if name.partition(".")[0] not in STANDARD_OR_PYDANTIC | {"schemas"}
    ]

    assert wrong == []


def test_workers_use_the_store_and_the_foundations_of_the_service_only():
    allowed = ("service.store", "service.settings", "service.logs", "service.exposition")

    wrong = [
        (where(path), name)
        for path in modules("workers")
        for name in imports(path)
        if name.partition(".")[0] == "service" and not name.startswith(allowed)
    ]

    assert wrong == []


def test_torch_is_imported_under_workers_only():
    wrong = [
        (where(path), name)
        for path in modules("schemas", "service")
        for name in imports(path)
        if name.partition(".")[0] in {"torch", "torchvision", "transformers", "onnxruntime"}
    ]

    assert wrong == []


def test_the_engine_of_structured_pruning_knows_nothing_of_jobs():
    forbidden = ("workers.session", "workers.child", "workers.supervisor", "workers.publish", "service")

    wrong = [
        (where(path), name)
        for path in modules("workers/pruning/structured")
        for name in imports(path)
        if name.startswith(forbidden)
    ]

    assert wrong == []


def test_another_pruning_library_is_only_what_we_are_measured_against():
    measured = ("tests/benchmarks/", "tests/tables/")

    wrong = [
        (where(path), name)
        for path in modules(*PACKAGES, "tests")
        if not where(path).startswith(measured)
        for name in imports(path)
        if name.partition(".")[0] == "torch_pruning"
    ]

    assert wrong == []


def test_the_api_makes_no_celery_call():
    loaded = loaded_modules(
        "from service.settings import Settings; import service.app as a; a.create_app(Settings())"
    )

    assert not {"celery", "kombu"} & loaded


def test_the_app_starts_without_torch_and_without_workers():
    loaded = loaded_modules(
        "from service.settings import Settings; import service.app as a; a.create_app(Settings())"
    )

    assert "service.submit" in loaded
    assert not {"torch", "numpy", "workers"} & loaded


@cache
def loaded_modules(code: str) -> set[str]:
    """All modules that a fresh interpreter has after `code`."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(answer.stdout.split())


def test_the_environment_is_read_in_settings_only():
    wrong = [
        (where(path), node.lineno)
        for path in modules(*PACKAGES)
        if path.name != MAY_READ_ENVIRONMENT
        for node in ast.walk(tree(path))
        if reads_environment(node)
    ]

    assert wrong == []


def reads_environment(node: ast.AST) -> bool:
    """`os.getenv(…)`, `os.environ["X"]`, `os.environ.get(…)`; handing all of it to a child is no reading."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.ctx, ast.Load) and is_environ(node.value)
    if isinstance(node, ast.Attribute):
        is_getenv = node.attr == "getenv" and isinstance(node.value, ast.Name) and node.value.id == "os"
        return is_getenv or (node.attr in ("get", "pop", "items") and is_environ(node.value))
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and any(alias.name in ("environ", "getenv") for alias in node.names)
    return False


def is_environ(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "environ"
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    )


def test_no_file_grows_beyond_what_one_can_read():
    limits = [(path, MAX_LINES) for path in modules(*PACKAGES)]
    limits += [(path, MAX_TEST_LINES) for path in modules("tests")]

    wrong = [
        (where(path), lines)
        for path, limit in limits
        if (lines := len(path.read_text().splitlines())) > limit
    ]

    assert wrong == []


def test_no_function_grows_beyond_a_screen():
    wrong = [
        (where(path), node.name, length)
        for path in modules(*PACKAGES, "tests")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]

    assert wrong == []


def test_every_module_opens_with_a_line_that_says_what_it_is_for():
    wrong = []
    for path in modules(*PACKAGES, "tests"):
        text = ast.get_docstring(tree(path)) or ""
        is_marker = not path.read_text().strip()
        if not is_marker and not text.partition("\n")[0].strip():
            wrong.append(where(path))

    assert wrong == []


def test_the_rules_see_what_they_forbid():
    assert reads_environment(ast.parse("os.environ['X']").body[0].value)  # type: ignore[attr-defined]
    assert reads_environment(ast.parse("os.getenv").body[0].value)  # type: ignore[attr-defined]
    assert reads_environment(ast.parse("os.environ.get").body[0].value)  # type: ignore[attr-defined]
    assert not reads_environment(ast.parse("{**os.environ}").body[0].value)  # type: ignore[attr-defined]
    assert list(imports(ROOT / "service" / "app.py"))
