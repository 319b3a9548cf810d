"""Imports within ser go one way: no module is imported, at its head or in a function, by what it imports itself."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Modules that are imported by their name at run time: importlib hides them from the syntax.
BY_NAME = {
    "ser.config": ("ser.features.", "ser.models."), "ser.corpora": ("ser.corpora.",), "ser.inputs": ("ser.inputs.",),
    "ser.learners": ("ser.learners.",),
}  # fmt: skip


def modules(root):
    """Every module of ser below a folder, by its name."""
    names = {path: ".".join(path.relative_to(root).with_suffix("").parts) for path in (root / "ser").rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def statements(node):
    """All that runs: a node and what is in it, without what is for type checkers alone."""
    yield node
    is_for_types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    for child in node.orelse if is_for_types else ast.iter_child_nodes(node):
        yield from statements(child)


def imports(path, known):
    """The modules of `known` that a file imports."""
    found = set()
    for node in statements(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & known.keys()


def graph(root):
    """{module: modules that it imports}, but for the packages that it is in: Python imports these before it anyway."""
    known = modules(root)
    edges = {
        name: {other for other in imports(path, known) if not f"{name}.".startswith(f"{other}.")}
        for name, path in known.items()
    }
    for name, prefixes in BY_NAME.items():
        if name in edges:
            edges[name] |= {other for other in known if other.startswith(prefixes)}
    return edges


def test_imports_form_no_cycle():
    edges = graph(ROOT)
    assert edges["ser.config"] >= {"ser.models.sherman", "ser.features.logmel", "ser.cli"}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(f"imports form a cycle: {' <- '.join(error.args[1])}")


def test_modules_imported_by_name_are_listed():
    """importlib stands in the modules of BY_NAME alone."""
    users = {name for name, path in modules(ROOT).items() if "import_module(" in path.read_text()}
    assert users == set(BY_NAME)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("from ser import second", "from ser.first import x"),
        ("import ser.second", "def f():\n    from ser import first"),
        ("if TYPE_CHECKING:\n    x = 1\nelse:\n    import ser.second", "from ser.first import x"),
        ("", "from ser.corpora import b"),
    ],
)
def test_a_cycle_is_found(tmp_path, first, second):
    (tmp_path / "ser/corpora").mkdir(parents=True)
    files = {"first": first, "second": second, "corpora/__init__": "", "corpora/b": "import ser.second"}
    for name, text in files.items():
        (tmp_path / f"ser/{name}.py").write_text(text)
    with pytest.raises(CycleError):
        TopologicalSorter(graph(tmp_path)).prepare()


def test_what_type_checkers_import_is_no_cycle(tmp_path):
    (tmp_path / "ser").mkdir()
    (tmp_path / "ser/first.py").write_text("from ser import second")
    (tmp_path / "ser/second.py").write_text("if TYPE_CHECKING:\n    from ser import first")
    assert graph(tmp_path) == {"ser.first": {"ser.second"}, "ser.second": set()}
    TopologicalSorter(graph(tmp_path)).prepare()
