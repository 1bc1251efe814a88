"""Every public name says what it is, and every function of arrays their shapes: read, not imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dreamzero", "kernels/dreamzero_kernels")
# "[b, l, d]", "any shape", "a scalar", or the name of what says it: "see ``x``", "As ``x``".
_SHAPE = re.compile(r"\[[^\]]*\]|\bshapes?\b|\bscalar|\b[Ss]ee ``|\bAs ``")
_ARRAY = re.compile(r"\b(?:Tensor|ndarray)\b")
# Collections of tensors have the shapes of what they name.
_NAMED = re.compile(r"\b(?:dict|Mapping|Sequence|Iterator|list)\[")
# Not said yet. A name that says it by now has to leave.
NO_SHAPE = {"dreamzero.inference.reference.newest", "dreamzero.inference.weights.gelu_tanh"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def modules() -> Iterator[tuple[str, ast.Module]]:
    """(dotted name, tree) of every public module."""
    for package in PACKAGES:
        base = (ROOT / package).parent
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            if not any(part.startswith("_") and part != "__init__" for part in parts):
                yield ".".join(p for p in parts if p != "__init__"), ast.parse(path.read_text())


def public(module: ast.Module) -> Iterator[Definition]:
    """The module's own public functions and classes."""
    for node in module.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def arrays(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it takes or returns an array that no collection names."""
    spec = function.args
    hints = [a.annotation for a in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    texts = [ast.unparse(hint) for hint in (*hints, function.returns) if hint is not None]
    return any(_ARRAY.search(text) and not _NAMED.search(text) for text in texts)


def without_docstring(name: str, module: ast.Module) -> list[str]:
    """Names of the module, itself included, that have none."""
    found = [] if ast.get_docstring(module) else [name]
    return found + [f"{name}.{n.name}" for n in public(module) if not ast.get_docstring(n)]


def without_shapes(name: str, module: ast.Module) -> list[str]:
    """Functions of the module that take or return arrays and say no shape."""
    functions = [n for n in public(module) if not isinstance(n, ast.ClassDef) and arrays(n)]
    return [f"{name}.{n.name}" for n in functions if not _SHAPE.search(ast.get_docstring(n) or "")]


def test_every_public_name_has_a_docstring() -> None:
    found = [missing for name, tree in modules() for missing in without_docstring(name, tree)]
    assert not found, f"without a docstring: {', '.join(found)}"


def test_functions_of_arrays_say_their_shapes() -> None:
    found = {missing for name, tree in modules() for missing in without_shapes(name, tree)}
    assert not found - NO_SHAPE, f"no shapes in the docstrings of {sorted(found - NO_SHAPE)}"
    assert not NO_SHAPE - found, f"no longer without: {sorted(NO_SHAPE - found)}"


@pytest.mark.parametrize(
    ("source", "undocumented", "shapeless"),
    [
        ("def f(): pass", ["m", "m.f"], []),
        ("'A module.'\ndef _f(): pass", [], []),
        ("'A module.'\nclass C:\n    'It.'\n    def f(self): pass", [], []),
        ("'A module.'\ndef f(x: Tensor) -> int:\n    'Its sum.'", [], ["m.f"]),
        ("'A module.'\ndef f(x: Tensor | None) -> int:\n    'Sum of ``x [b, l]``.'", [], []),
        ("'A module.'\ndef f(x: dict[str, Tensor]) -> int:\n    'Their number.'", [], []),
    ],
)
def test_what_is_missing_is_noticed(
    source: str, undocumented: list[str], shapeless: list[str]
) -> None:
    tree = ast.parse(source)
    assert (without_docstring("m", tree), without_shapes("m", tree)) == (undocumented, shapeless)
