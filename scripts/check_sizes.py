"""Fails when a file, a function or a config has grown past its budget: it is two things by then."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 600
FUNCTION_LINES = 80
CONFIG_FIELDS = 12
CONFIG = "Config"


def main() -> None:
    folders = ("fluoroscope", "tests", "benchmarks", "scripts")
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.py"))
    trees = {file: ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in files}
    configs = config_classes(list(trees.values()))
    problems = [text for file, tree in trees.items() for text in oversized(file, tree, configs)]
    print("\n".join(problems) or f"{len(files)} files are within their budgets.")
    sys.exit(bool(problems))


def oversized(file: Path, tree: ast.Module, configs: set[str]) -> Iterator[str]:
    n_lines = len(file.read_text(encoding="utf-8").splitlines())
    if n_lines > FILE_LINES:
        yield f"{file}: {n_lines} lines, at most {FILE_LINES}"
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    yield _say(file, node, f"{length} lines, at most {FUNCTION_LINES}")
            case ast.ClassDef() if node.name in configs:
                n_fields = sum(_is_field(statement) for statement in node.body)
                if n_fields > CONFIG_FIELDS:
                    yield _say(file, node, f"{n_fields} fields, at most {CONFIG_FIELDS}")
            case _:
                pass


def config_classes(trees: list[ast.Module]) -> set[str]:
    """Names of the classes that descend from `Config`, in whichever file."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {CONFIG}
    while more := {name for name, parents in bases.items() if parents & found} - found:
        found |= more
    return found


def _is_field(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(
        statement.annotation
    )


def _say(file: Path, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, what: str) -> str:
    return f"{file}:{node.lineno}: {node.name} has {what}"


if __name__ == "__main__":
    main()
