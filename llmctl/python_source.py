"""Documented functions and classes of Python source, by `ast`: what the built-in chat data ask about."""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A function or class as it stands in a file. What takes time to make out is made when it is asked for."""

    node: FunctionNode | ast.ClassDef
    lines: list[str]
    """Of the whole file."""

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @cached_property
    def docstring(self) -> str:
        """Empty where there is none."""
        return ast.get_docstring(self.node) or ""

    @property
    def summary(self) -> str:
        """First paragraph of the docstring, on one line."""
        first = self.docstring.strip().split("\n\n")[0]
        return " ".join(first.split())

    @cached_property
    def source(self) -> str:
        """Without the docstring and without the indentation of the class around it."""
        first = self.node.lineno - 1
        kept = list(range(first, self.node.end_lineno or self.node.lineno))
        if self.docstring:
            written = self.node.body[0]
            taken = range(written.lineno - 1, written.end_lineno or written.lineno)
            if taken.start > first:
                kept = [number for number in kept if number not in taken]
        indent = len(self.lines[first]) - len(self.lines[first].lstrip())
        lines = (self.lines[number] for number in kept if number < len(self.lines))
        return "\n".join(line[indent:] if not line[:indent].strip() else line.lstrip() for line in lines).rstrip()

    @cached_property
    def header(self) -> str:
        """From `def` or `class` to the colon, on one line."""
        node = self.node
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            return f"class {node.name}({bases}):" if bases else f"class {node.name}:"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        prefix = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        return f"{prefix} {node.name}({ast.unparse(node.args)}){returns}:"


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None for what this Python cannot read (tests of bad syntax, older dialects)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's code
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every statement below `tree`, nested ones too. Expressions, nine tenths of the nodes, are not looked at."""
    queue = [tree]
    while queue:
        node = queue.pop()
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            inner = getattr(node, field, ())
            yield from inner
            queue.extend(inner)


def definitions(text: str, tree: ast.Module, private: bool = False) -> Iterator[Definition]:
    """Functions, methods and classes; with `private` also those whose name begins with an underscore."""
    lines = text.splitlines()
    for node in statements(tree):
        if isinstance(node, FunctionNode | ast.ClassDef) and (private or not node.name.startswith("_")):
            yield Definition(node, lines)


def raised(node: FunctionNode) -> Iterator[tuple[str, str]]:
    """(exception, message) of every `raise Exception("message")` in the function."""
    for inner in statements(node):
        if not isinstance(inner, ast.Raise) or not isinstance(inner.exc, ast.Call) or not inner.exc.args:
            continue
        first = inner.exc.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and isinstance(inner.exc.func, ast.Name):
            yield inner.exc.func.id, first.value


def imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(line as it would be written, module, name) of every `from module import name`."""
    for node in statements(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if alias.name != "*" and not alias.asname:
                    yield ast.unparse(node), node.module, alias.name
