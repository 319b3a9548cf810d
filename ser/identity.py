"""What a result depends on, identified by content and never by file time: settings, source code, tables, files.

Two results belong to one row of a table if all of these are the same; a difference is named by its key.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from ser.cli import UserError
from ser.config import in_kind, kind_of
from ser.datadir import read_table

ROOT = Path(__file__).parent.parent
SAME_CODE = ROOT / "egs" / "same_code.txt"  # lines `before after ...`, which ser.same_code writes
# Modules that move data but compute no value of a result. What they read is identified by its content elsewhere:
# recordings by the checksums of their samples, settings by their values, folds by their utterances.
PLUMBING = frozenset(
    f"ser.{name}" for name in ("cli", "config", "datadir", "files", "folds", "identity", "runs", "settings", "worker")
)
PARTS = ("train", "dev", "test")
DEFAULT = "the default"  # stands for a setting that is absent
PROSE = ("name", "description", "table")  # of systems and protocols: no result depends on it


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits computed from JSON values."""
    text = "".join(json.dumps(value, sort_keys=True) for value in values)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settings(config: Any) -> Any:
    """A system, a protocol or a part of one as plain values, without prose and without defaults, so that adding a
    setting later does not change the identity of earlier results."""
    if isinstance(config, list | tuple):
        return [settings(item) for item in config]
    if not is_dataclass(config):
        return config
    content = {
        item.name: settings(getattr(config, item.name))
        for item in fields(config)
        if item.name not in PROSE and getattr(config, item.name) != _default(item)
    }
    return {"kind": kind_of(config), **content} if in_kind(config) else content


def _default(item: Any) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def differences(one: Any, other: Any, key: str = "") -> list[str]:
    """What differs between two settings, as `model.cost [1], not [3]`: `one`'s value first."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [
            line
            for name in keys
            for line in differences(one.get(name, DEFAULT), other.get(name, DEFAULT), f"{key}.{name}" if key else name)
        ]
    shown = [value if value is DEFAULT else json.dumps(value) for value in (one, other)]
    return [] if one == other else [f"{key} {shown[0]}, not {shown[1]}"]


@functools.cache
def sources(*modules: str) -> Mapping[str, str]:
    """Fingerprints of the source code of modules and of all modules of ser that they import, except PLUMBING: {module:
    16 digits}. Comments, docstrings, layout and imports for type checkers do not matter."""
    found: dict[str, str] = {}
    waiting = [*modules]
    while waiting:
        module = waiting.pop()
        if module not in found and module not in PLUMBING:
            tree = _parse(module)
            found[module] = fingerprint(_plain(tree))
            waiting += _imports(tree)
    return dict(sorted(found.items()))


def current_code(code: str, system: Mapping[str, Any]) -> str:
    """The fingerprint of the newest code that was shown to give the same bytes as the code with this fingerprint, for a
    system with these settings. Raises UserError if SAME_CODE is damaged."""
    return _newer(SAME_CODE if SAME_CODE.exists() else None).get((code, compared_settings(system)), code)


def compared_settings(system: Mapping[str, Any]) -> str:
    """Fingerprint of a system's settings, without how long it trains: ser.same_code compares after a few epochs."""
    training = system.get("training") or {}
    rest = {key: value for key, value in training.items() if key not in ("epochs", "patience")}
    return fingerprint({**system, "training": rest})


@functools.cache
def _newer(path: Path | None) -> dict[tuple[str, str], str]:
    """The newest equivalent of each (code, settings) in SAME_CODE, whose lines start with code before, code after and
    settings; later lines are newer."""
    newer: dict[tuple[str, str], str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path else [], 1):
        if len(line.split()) != 7:
            raise UserError(f"{path}:{number}: not a line of ser.same_code; remove it, or restore the file with git")
        before, after, system = line.split()[:3]
        until_now = newer.get((before, system), before)
        same = {key for key, code in newer.items() if key[1] == system and code == until_now}
        newer |= dict.fromkeys({*same, (before, system), (until_now, system)}, after)
    return newer


def _path(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _parse(module: str) -> ast.Module:
    """The module's syntax tree, without docstrings and imports for type checkers."""
    try:
        tree = ast.parse(_path(module).read_bytes())
    except SyntaxError as error:
        raise UserError(f"{_path(module)}:{error.lineno}: {error.msg}; fix the module") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    tree.body = [
        part
        for node in tree.body
        for part in (
            node.orelse if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING" else [node]
        )
    ]
    return tree


def _imports(tree: ast.Module) -> Iterator[str]:
    """The modules of ser that it imports, at the top or inside a function."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        names += [name.rpartition(".")[0] for name in names]  # Python runs a package's __init__.py first
        yield from (name for name in names if name.startswith("ser.") and _path(name).is_file())


def _plain(node: Any) -> Any:
    """A syntax tree as plain lists, without empty fields, since newer versions of Python add such fields."""
    if isinstance(node, ast.AST):
        parts = [[name, _plain(value)] for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *parts]
    return [_plain(item) for item in node] if isinstance(node, list) else repr(node)


def md5_of(*paths: Path) -> str:
    """MD5 of some files together; a file that has not changed is not read again."""
    sums = [_md5(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
    return hashlib.md5("".join(sums).encode(), usedforsecurity=False).hexdigest()


@functools.cache
def _md5(path: Path, changed: int, size: int) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def split_of(folds: Path, number: int) -> str:
    """Fingerprint of a fold's classes and utterances, those to adapt to included, as they are on disk now."""
    return _split(*(_stamp(path) for path in _tables(folds, number)))


def column_of(table: Path, folds: Path, numbers: tuple[int, ...]) -> str:
    """Fingerprint of a table of the data directory, such as utt2md5, for the utterances of some folds."""
    tables = [_stamp(path) for number in numbers for path in _tables(folds, number)[1:]]
    return _column(_stamp(table), *tables)


def _tables(folds: Path, number: int) -> list[Path]:
    adapt = folds / f"fold{number}" / "adapt"  # only a protocol with `adapt` has it
    parts = [folds / f"fold{number}" / part for part in PARTS]
    return [folds / "classes", *parts, *([adapt] if adapt.exists() else [])]


def _stamp(path: Path) -> tuple[Path, int, int]:
    """Path, time and size of a file, by which caches see whether it has changed."""
    try:
        state = path.stat()
    except FileNotFoundError:
        remedy = "run stage 0 again" if path.name.startswith("utt2") else "run stage 1"
        raise UserError(f"{path}: no such table; {remedy}") from None
    return path, state.st_mtime_ns, state.st_size


def table_of(path: Path) -> Mapping[str, str]:
    """A table; it is read again only if it has changed."""
    return _table(*_stamp(path))


@functools.cache
def _table(path: Path, changed: int, size: int) -> dict[str, str]:
    return read_table(path)


@functools.cache
def _split(*stamps: tuple[Path, int, int]) -> str:
    return fingerprint(*(sorted(_table(*stamp).items()) for stamp in stamps))


@functools.cache
def _column(table: tuple[Path, int, int], *stamps: tuple[Path, int, int]) -> str:
    values, found = _table(*table), {}
    for stamp in stamps:
        for number, utt in enumerate(_table(*stamp), 1):
            if utt not in values:
                raise UserError(
                    f"{stamp[0]}:{number}: {utt} is not in {table[0]}; remove the line or run stages 0 and 1 again"
                )
            found[utt] = values[utt]
    return fingerprint(sorted(found.items()))
