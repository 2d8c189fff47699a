"""What is to be known of all modules that talk to TensorRT before any of them can be read: see ``usage``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field

Versions = frozenset[str]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Facts:
    """Filled by ``learn``."""

    api: Mapping[str, frozenset[str]]  # the names of each version
    bases: Mapping[str, Versions] = field(default_factory=dict)  # the versions that a whole module may run with
    trees: dict[str, ast.Module] = field(default_factory=dict)
    makers: set[str] = field(default_factory=set)  # functions that return values of the vendors'
    attributes: set[str] = field(default_factory=set)  # our attributes that hold them
    own: set[str] = field(default_factory=set)  # our attributes of our subclasses of the vendors' classes
    predicates: dict[str, ast.expr] = field(default_factory=dict)  # functions that return a test, and the test
    reached: dict[tuple[str, str], Versions] = field(default_factory=dict)  # (module, function): from its calls

    def having(self, name: str) -> Versions:
        return frozenset(version for version, names in self.api.items() if name in names)


def is_vendors(annotation: ast.expr | None) -> bool:
    """Whether an annotation says ``Any``, alone or in a tuple; JSON's ``dict[str, Any]`` is something else."""
    if annotation is None:
        return False
    text = ast.unparse(annotation)
    words = text.replace("[", " ").replace("]", " ").replace(",", " ").replace("'", " ").split()
    return "Any" in words and not {"dict", "Mapping", "Callable"} & set(words)


def learn(facts: Facts, tree: ast.Module) -> None:
    """Add what the module's annotations and classes say."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            if is_vendors(node.returns):
                facts.makers.add(node.name)
            statements = [each for each in node.body if not _is_docstring(each)]
            if len(statements) == 1 and isinstance(statements[0], ast.Return) and statements[0].value is not None:
                facts.predicates[node.name] = statements[0].value
        elif isinstance(node, ast.AnnAssign) and is_vendors(node.annotation):
            if isinstance(node.target, ast.Attribute):
                facts.attributes.add(node.target.attr)
        elif isinstance(node, ast.ClassDef):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and is_vendors(each.annotation)]
            facts.attributes.update(each.target.id for each in fields if isinstance(each.target, ast.Name))
            if any(isinstance(base, ast.Attribute) for base in node.bases):  # class Monitor(trt.IProgressMonitor)
                stored = [each for each in ast.walk(node) if isinstance(each, ast.Attribute)]
                facts.own.update(each.attr for each in stored if isinstance(each.ctx, ast.Store))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def only_called_here(trees: Mapping[str, ast.Module], others: Mapping[str, ast.Module]) -> set[tuple[str, str]]:
    """The functions at the top of modules that are called in ``trees`` and mentioned nowhere else."""
    functions = [
        node.func for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Call)
    ]  # fmt: skip
    calls = {id(function) for function in functions}
    mentioned = {
        name_of(node)
        for module, tree in {**trees, **others}.items()
        for node in ast.walk(tree)
        if module in others or id(node) not in calls
    }
    called = {name_of(function) for function in functions}
    return {
        (module, node.name)
        for module, tree in trees.items()
        for node in tree.body
        if isinstance(node, Function) and node.name in called - mentioned
    }


def name_of(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
