"""The shape of the source: floors, no circles of imports, thin entries, short files and functions."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {"textgym": {"agents", "scripts"}, "agents": {"scripts"}, "scripts": set()}
"""Each floor, with those above it, which it may not import."""
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 300, 60
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes):
    """The dotted names that statements import; `from a import b` is a.b where that is a module, and otherwise a."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written in full"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module for name in names)


def at_import_time(tree):
    """The statements that run when a module is imported; those for type checkers alone do not."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if isinstance(node, ast.If | ast.Try | ast.For | ast.With):
            yield from ast.walk(node)


@pytest.mark.parametrize("floor", FLOORS)
def test_no_floor_imports_one_above_it(floor):
    for path in (ROOT / floor).rglob("*.py"):
        tops = {name.split(".")[0] for name in imported(ast.walk(tree_of(path)))}
        assert not tops & (FLOORS[floor] | {"tests"}), path


def test_no_test_file_imports_another():
    """What tests share is in `tests/helpers` and `tests/conftest.py`."""
    for path in (ROOT / "tests").rglob("*.py"):
        names = {name for name in imported(ast.walk(tree_of(path))) if name.startswith("tests.")}
        assert all(name.startswith(("tests.helpers", "tests.conftest")) for name in names), path


def test_no_imports_go_in_circles():
    edges = {
        name: {other for other in imported(at_import_time(tree_of(path))) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(name, above):
        assert name not in above, f"imports in a circle: {' -> '.join([*above[above.index(name) :], name])}"
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, [*above, name])
            done.add(name)

    for name in sorted(MODULES):
        visit(name, [])


def test_entries_are_thin():
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "scripts").glob("*.py")
    }
    entries = {name for name in lengths if '__name__ == "__main__"' in (ROOT / "scripts" / name).read_text()}
    assert len(entries) > 10 and not {name: lengths[name] for name in entries if lengths[name] >= 100}


def lines_of_code(node):
    """Lines of a function without its docstring."""
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if is_docstring else 0
    return node.end_lineno - node.lineno + 1 - docstring


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FILE}


def test_functions_are_short():
    """Without their docstrings, which may say as much as there is to say."""
    found = {
        f"{path.relative_to(ROOT)}:{node.name}": lines_of_code(node)
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: length for name, length in found.items() if length > MOST_LINES_OF_A_FUNCTION}
