"""Which names of TensorRT's Python interface our sources use, and with which versions the code around each may run.

Reads the sources' syntax trees. Two conventions of those sources make that possible: a value of the vendors' is
annotated ``Any`` wherever it crosses a function, and what a version can do is asked with ``hasattr`` or ``getattr``.
``vendor is TENSORRT_RTX`` is understood too, and so are early returns, functions that only return such a test, and
functions that are called only under one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .facts import Facts, Function, Versions, is_vendors, learn, name_of, only_called_here

RTX = "tensorrt_rtx"
# What Python's own values can do: names and messages (str), shapes (tuple), sizes (int), lists of layers (list).
_PYTHON = frozenset(name for kind in (str, tuple, int, list, bytes) for name in dir(kind))


@dataclass(frozen=True)
class Use:
    """``name`` is used in line ``line`` of ``module``, in code that may run with any of ``versions``."""

    module: str
    line: int
    name: str
    versions: Versions


def uses(trees: Mapping[str, ast.Module], bases: Mapping[str, Versions], api: Mapping[str, frozenset[str]],
         others: Mapping[str, ast.Module]) -> tuple[list[Use], list[Use]]:  # fmt: skip
    """The names used unguarded or under guards that are accounted for, and the names that guards ask for.

    ``trees``: the modules that talk to TensorRT, by name. ``bases``: the versions that each may run with.
    ``others``: the rest of the package; a function that is mentioned there may run with all of its module's versions.
    """
    facts = Facts(api, bases, dict(trees))
    for tree in trees.values():
        learn(facts, tree)
    private = only_called_here(trees, others)
    facts.reached = {key: frozenset() for key in private}
    known = None
    while known != (facts.reached, facts.attributes):
        known = (facts.reached, set(facts.attributes))
        readers = [_Reader(facts, module) for module in trees]
        for reader in readers:
            reader.module_body()
        facts.reached = {key: frozenset() for key in private}
        for key, versions in [call for reader in readers for call in reader.calls]:
            if key in private:
                facts.reached[key] |= versions & bases[key[0]]
    return [use for reader in readers for use in reader.uses], [use for reader in readers for use in reader.asked]


class _Reader:
    """Reads one module. ``scope`` and ``asks`` are those of the function that is being read."""

    def __init__(self, facts: Facts, module: str) -> None:
        self.facts = facts
        self.module = module
        self.everything = frozenset(facts.api)
        self.uses: list[Use] = []
        self.asked: list[Use] = []
        self.calls: list[tuple[tuple[str, str], Versions]] = []
        self.scope: frozenset[str] = frozenset()  # the local names that hold values of the vendors'
        self.asks: dict[str, str] = {}  # the local names that hold getattr(vendors', NAME, None) or hasattr's answer
        self.texts: dict[str, ast.expr] = {}  # what the local names are bound to that name attributes
        self.arguments: list[str] = []  # of the function at the module's top that is being read
        self.function_name = ""
        self.functions = {
            name: {node.name for node in tree.body if isinstance(node, Function)} for name, tree in facts.trees.items()
        }

    def module_body(self) -> None:
        self.block(self.facts.trees[self.module].body, self.facts.bases[self.module])

    # Statements: each is read with the versions it may run with, and says with which the next one may.

    def block(self, statements: list[ast.stmt], versions: Versions) -> Versions:
        for statement in statements:
            versions = self.statement(statement, versions)
        return versions

    def statement(self, node: ast.stmt, versions: Versions) -> Versions:
        if isinstance(node, Function):
            self.function(node, versions)
        elif isinstance(node, ast.ClassDef):
            self.class_body(node, versions)
        elif isinstance(node, ast.If):
            yes, no = self.test(node.test)
            self.expression(node.test, versions)
            return self.block(node.body, versions & yes) | self.block(node.orelse, versions & no)
        elif isinstance(node, ast.Try):
            return self.attempt(node, versions)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr | ast.withitem):
                    self.expression(child, versions)
            after = self.block(getattr(node, "body", []), versions)
            self.block(getattr(node, "orelse", []), versions)
            if isinstance(node, ast.Return | ast.Raise | ast.Continue | ast.Break):
                return frozenset()
            return after if isinstance(node, ast.With) else versions
        return versions

    def attempt(self, node: ast.Try, versions: Versions) -> Versions:
        caught = {
            name.id for each in node.handlers if each.type for name in ast.walk(each.type) if isinstance(name, ast.Name)
        }
        # Whoever catches AttributeError has thought of the versions that lack a name.
        after = self.block(node.body, frozenset() if "AttributeError" in caught else versions)
        after = self.block(node.orelse, after)
        for handler in node.handlers:
            after |= self.block(handler.body, versions)
        self.block(node.finalbody, versions)
        return versions if "AttributeError" in caught else after

    def function(self, node: Function, versions: Versions) -> None:
        for default in [*node.args.defaults, *(each for each in node.args.kw_defaults if each), *node.decorator_list]:
            self.expression(default, versions)
        outer = self.scope, self.asks, self.texts, self.arguments, self.function_name
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        scope = set(self.scope) - {argument.arg for argument in arguments}
        self.scope = frozenset(scope | {argument.arg for argument in arguments if is_vendors(argument.annotation)})
        self.asks, self.texts = dict(self.asks), dict(self.texts)
        self.arguments, self.function_name = [argument.arg for argument in arguments], node.name
        while self.widened(node):
            pass
        at_top = node in self.facts.trees[self.module].body
        self.block(node.body, self.facts.reached.get((self.module, node.name), versions) if at_top else versions)
        self.scope, self.asks, self.texts, self.arguments, self.function_name = outer

    def class_body(self, node: ast.ClassDef, versions: Versions) -> None:
        for base in node.bases:
            self.expression(base, versions)
        if any(self.is_vendors(base) for base in node.bases):
            methods = [each for each in node.body if isinstance(each, Function) and not each.name.startswith("_")]
            self.uses += [Use(self.module, each.lineno, each.name, versions) for each in methods]
        self.block(node.body, versions)

    def widened(self, function: Function) -> bool:
        """Add what assignments of the function bind to values of the vendors'; whether there was anything new."""
        before = self.scope, dict(self.asks)
        for node in ast.walk(function):
            for target, value in _bindings(node):
                if self.is_vendors(value):
                    names = [each for each in ast.walk(target) if isinstance(each, ast.Name)]
                    self.scope |= {each.id for each in names if isinstance(each.ctx, ast.Store)}
                    if isinstance(target, ast.Attribute):
                        self.facts.attributes.add(target.attr)
                if isinstance(target, ast.Name):
                    self.texts[target.id] = value
                    name = self.asked_name(value)
                    if name is not None:
                        self.asks[target.id] = name
        return before != (self.scope, self.asks)

    # Expressions

    def expression(self, node: ast.AST, versions: Versions) -> None:
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                self.expression(value, versions)
                yes, no = self.test(value)
                versions &= yes if isinstance(node.op, ast.And) else no
        elif isinstance(node, ast.IfExp):
            yes, no = self.test(node.test)
            self.expression(node.test, versions)
            self.expression(node.body, versions & yes)
            self.expression(node.orelse, versions & no)
        else:
            if isinstance(node, ast.Attribute):
                self.attribute(node, node.value, node.attr, versions)
            elif isinstance(node, ast.Call):
                self.call(node, versions)
            for child in ast.iter_child_nodes(node):
                self.expression(child, versions)

    def attribute(self, node: ast.expr, owner: ast.expr, name: str, versions: Versions) -> None:
        elsewhere = name in self.facts.own or name in _PYTHON
        known = self.facts.having(name) or not elsewhere
        if known and not name.startswith("__") and self.is_vendors(owner):
            self.uses.append(Use(self.module, node.lineno, name, versions))

    def call(self, node: ast.Call, versions: Versions) -> None:
        name = self.asked_name(node)
        if name is not None:
            self.asked.append(Use(self.module, node.lineno, name, versions))
        elif _is_builtin(node, "getattr") and len(node.args) == 2 and self.is_vendors(node.args[0]):
            for text, among in self.spelled(node.args[1], versions):
                self.attribute(node, node.args[0], text, among)
        elif self.is_vendors(node.func):
            words = [keyword.arg for keyword in node.keywords if keyword.arg]
            self.uses += [Use(self.module, node.lineno, word, versions) for word in words]
        function = node.func
        if isinstance(function, ast.Name) and function.id in self.functions[self.module]:
            self.calls.append(((self.module, function.id), versions))
        elif isinstance(function, ast.Name | ast.Attribute):
            self.calls += [
                ((module, name), versions)
                for module, names in self.functions.items()
                for name in names & {name_of(function)}
            ]

    def spelled(self, node: ast.expr, versions: Versions) -> Iterator[tuple[str, Versions]]:
        """What a computed attribute's name may be, each with the versions it may be so with."""
        if isinstance(node, ast.Constant):
            yield str(node.value), versions
        elif isinstance(node, ast.IfExp):
            yes, no = self.test(node.test)
            yield from self.spelled(node.body, versions & yes)
            yield from self.spelled(node.orelse, versions & no)
        elif isinstance(node, ast.Name) and node.id in self.texts:
            yield from self.spelled(self.texts[node.id], versions)
        elif isinstance(node, ast.Name) and node.id in self.arguments:
            for call in ast.walk(self.facts.trees[self.module]):
                if (
                    isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Name)
                    and call.func.id == self.function_name
                ):
                    yield from self.spelled(call.args[self.arguments.index(node.id)], versions)
        else:
            yield f"<{ast.unparse(node)}>", versions

    def asked_name(self, node: ast.expr) -> str | None:
        """NAME in ``hasattr(vendors', "NAME")`` and in ``getattr(vendors', "NAME", default)``."""
        asks = _is_builtin(node, "hasattr") or (_is_builtin(node, "getattr") and len(node.args) == 3)
        if asks and self.is_vendors(node.args[0]) and isinstance(node.args[1], ast.Constant):
            return str(node.args[1].value)
        return None

    def is_vendors(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self.scope
            case ast.Attribute(value=owner, attr=name):
                plain = name in self.facts.own or name.startswith("__")
                return name in self.facts.attributes or (not plain and self.is_vendors(owner))
            case ast.Call(func=function):
                made = name_of(function) in self.facts.makers or self.is_vendors(function)
                return made or (_is_builtin(node, "getattr") and self.is_vendors(node.args[0]))
            case ast.Subscript(value=part) | ast.Starred(value=part) | ast.NamedExpr(value=part):
                parts = [part]
            case ast.IfExp(body=one, orelse=other):
                parts = [one, other]
            case ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
                pass
            case _:
                parts = []
        return any(self.is_vendors(part) for part in parts)

    # Tests: the versions with which each may be true, and with which it may be false

    def test(self, node: ast.expr) -> tuple[Versions, Versions]:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yes, no = self.test(node.operand)
            return no, yes
        if isinstance(node, ast.BoolOp):
            answers = [self.test(value) for value in node.values]
            yes, no = zip(*answers, strict=True)
            if isinstance(node.op, ast.And):
                return frozenset.intersection(*yes), frozenset.union(*no)
            return frozenset.union(*yes), frozenset.intersection(*no)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self.comparison(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.facts.predicates:
            return _Predicate(self.facts, self.module).test(self.facts.predicates[node.func.id])
        name = self.asks.get(node.id) if isinstance(node, ast.Name) else self.asked_name(node)
        return self.split(self.facts.having(name)) if name else (self.everything, self.everything)

    def comparison(self, node: ast.Compare) -> tuple[Versions, Versions]:
        left, right = node.left, node.comparators[0]
        answer = (self.everything, self.everything)
        if isinstance(right, ast.Name) and right.id in {"TENSORRT", "TENSORRT_RTX"}:
            rtx = frozenset({RTX}) & self.everything
            answer = self.split(rtx if right.id == "TENSORRT_RTX" else self.everything - rtx)
        elif (
            isinstance(right, ast.Constant)
            and right.value is None
            and isinstance(left, ast.Name)
            and left.id in self.asks
        ):
            answer = self.split(self.everything - self.facts.having(self.asks[left.id]))
        return answer[::-1] if isinstance(node.ops[0], ast.IsNot | ast.NotEq) else answer

    def split(self, yes: Versions) -> tuple[Versions, Versions]:
        return yes, self.everything - yes


class _Predicate(_Reader):
    """Reads the test that a function returns: whatever it asks, it asks of a value of the vendors'."""

    def is_vendors(self, node: ast.expr) -> bool:
        return isinstance(node, ast.expr)


def _is_builtin(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _bindings(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The (target, value) pairs of an assignment, loop, comprehension, ``with`` or ``:=``."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            pairwise = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            yield from zip(target.elts, node.value.elts, strict=True) if pairwise else [(target, node.value)]
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.comprehension):
        yield node.target, node.iter
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield node.optional_vars, node.context_expr
