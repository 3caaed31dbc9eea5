"""Who imports whom in this room: an order without a circle, and no import hidden in a function."""

import ast
from pathlib import Path

LAYERS = Path(__file__).resolve().parents[2] / "layers"


def test_imports_run_one_way():
    imports = {file.stem: set(imported(ast.parse(file.read_text()))) for file in LAYERS.glob("*.py")}
    done = {"__init__"}  # loads the data layers on demand, which is its purpose
    while left := set(imports) - done:
        ready = {name for name in left if not imports[name] - done}
        assert ready, f"imported in a circle: {sorted(left)}"
        done |= ready


def imported(tree):
    """Modules of this room that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "layers":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("layers."):
            yield node.module.split(".")[1]
