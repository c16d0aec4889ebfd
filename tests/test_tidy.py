"""The rules of STYLE.md that a machine can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 7
PAUSE_S_MAX = 0.05

SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)
PYTHON = [*SOURCES, *TESTS, *sorted((ROOT / "bench").rglob("*.py"))]
TEXTS = [
    path
    for pattern in ("*.md", "*.toml", "*.yaml", "Makefile", "Dockerfile", ".env.example", "docs/**/*.md", ".ci/*")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file()
]

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Split, so that this file does not match itself.
FORBIDDEN = {
    "a path of somebody's machine": r"/(?:ho" + r"me|Us" + r"ers|ro" + r"ot)/\w",
    "a host of a package registry": r"(?:files\.python" + r"hosted|py" + r"pi\.org|registry\.npm" + r"js)",
    "a note to oneself": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "a live-looking provider key": r"\bsk-(?!df-|…|ant-…)[A-Za-z0-9]{20,}",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def parameters(function: Function) -> list[str]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in named if argument.arg not in ("self", "cls")]


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_files_are_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    for function in functions(tree_of(path)):
        assert function.end_lineno is not None
        lines = function.end_lineno - function.lineno + 1
        assert lines <= FUNCTION_LINES_MAX, f"{function.name} has {lines} lines"
        if path in SOURCES and "cli" not in path.parts:  # a command's parameters are its options
            count = len(parameters(function))
            assert count <= PARAMETERS_MAX, f"{function.name} takes {count} parameters"


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_imports_are_absolute_and_stand_on_top(path: Path) -> None:
    tree = tree_of(path)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"relative import on line {node.lineno}"
    for function in functions(tree):
        inner = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not inner, f"{function.name} imports inside its body"


@pytest.mark.parametrize("path", sorted((ROOT / "src/dragonfly/gateway").rglob("*.py")), ids=name_of)
def test_the_data_plane_sees_only_what_it_may(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dragonfly."):
            package = (node.module or "").split(".")[1]
            assert package in ("gateway", "admission", "providers", "settings", "core"), f"imports {node.module}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_state_is_passed_in_and_not_global(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        assert not isinstance(node, ast.Global), f"`global` on line {node.lineno}"


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_modules_say_what_they_are_for(path: Path) -> None:
    if path.read_text().strip():
        assert ast.get_docstring(tree_of(path)), "the module has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_is_called_service_or_utils(path: Path) -> None:
    assert path.stem not in ("service", "services", "utils", "helpers", "common", "misc")


@pytest.mark.parametrize("path", [path for path in SOURCES if "cli" not in path.parts], ids=name_of)
def test_only_the_commands_print(path: Path) -> None:
    if path.name in ("cli.py", "demo.py"):
        return
    for node in ast.walk(tree_of(path)):
        printing = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not printing, f"print on line {getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize("path", [path for path in TESTS if "fakes" not in path.parts], ids=name_of)
def test_tests_wait_for_events_and_do_not_sleep(path: Path) -> None:
    """A pause between two looks, or between two pieces on a wire, is not what is forbidden."""
    for node in ast.walk(tree_of(path)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep"):
            continue
        duration = node.args[0] if node.args else None
        assert isinstance(duration, ast.Constant), f"a sleep on line {node.lineno}"
        assert isinstance(duration.value, int | float), f"a sleep on line {node.lineno}"
        assert duration.value <= PAUSE_S_MAX, f"a sleep on line {node.lineno}"


@pytest.mark.parametrize("path", [*PYTHON, *TEXTS], ids=name_of)
def test_nothing_forbidden_is_written(path: Path) -> None:
    text = path.read_text()
    for what, pattern in FORBIDDEN.items():
        found = re.search(pattern, text)
        assert not found, f"{what} on line {text[: found.start()].count(chr(10)) + 1}"


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_texts_end_with_one_line_feed_and_have_no_trailing_blanks(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert not re.search(r"[ \t]+$", text, re.MULTILINE)
