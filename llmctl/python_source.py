"""Documented functions and classes of Python source, by `ast`: what the built-in chat data ask about."""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or class as it stands in a file."""

    node: FunctionNode | ast.ClassDef
    name: str
    docstring: str
    """Empty where there is none."""
    source: str
    """Without the docstring and without the indentation of the class around it."""
    header: str
    """From `def` or `class` to the colon, on one line."""
    line: int

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @property
    def summary(self) -> str:
        """First sentence or line of the docstring."""
        first = self.docstring.strip().split("\n\n")[0]
        return " ".join(first.split())


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None for what this Python cannot read (tests of bad syntax, older dialects)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's code
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def definitions(text: str, tree: ast.Module, private: bool = False) -> Iterator[Definition]:
    """Functions, methods and classes; with `private` also those whose name begins with an underscore."""
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode | ast.ClassDef) and (private or not node.name.startswith("_")):
            yield _definition(node, lines)


def _definition(node: FunctionNode | ast.ClassDef, lines: list[str]) -> Definition:
    docstring = ast.get_docstring(node) or ""
    first = node.lineno - 1
    body = node.body
    kept = list(range(first, node.end_lineno or node.lineno))
    if docstring:
        taken = range(body[0].lineno - 1, body[0].end_lineno or body[0].lineno)
        if taken.start > first:
            kept = [number for number in kept if number not in taken]
    indent = len(lines[first]) - len(lines[first].lstrip())
    source = "\n".join(lines[n][indent:] if not lines[n][:indent].strip() else lines[n].lstrip() for n in kept if n < len(lines))
    return Definition(node, node.name, docstring, source.rstrip(), _header(node), node.lineno)


def _header(node: FunctionNode | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases}):" if bases else f"class {node.name}:"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    prefix = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{prefix} {node.name}({ast.unparse(node.args)}){returns}:"


def raised(node: FunctionNode) -> Iterator[tuple[str, str]]:
    """(exception, message) of every `raise Exception("message")` in the function."""
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Raise) or not isinstance(inner.exc, ast.Call) or not inner.exc.args:
            continue
        first = inner.exc.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and isinstance(inner.exc.func, ast.Name):
            yield inner.exc.func.id, first.value


def imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(line as it would be written, module, name) of every `from module import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if alias.name != "*" and not alias.asname:
                    yield ast.unparse(node), node.module, alias.name
