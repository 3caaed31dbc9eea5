"""Who imports whom: no circles among the modules, not even by imports inside functions."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("caffe", "layers", "models", "eval", "tools")
# `import caffe` gives its names when they are asked for; what a module of the package imports from it are its modules.
LAZY = {"caffe/__init__.py"}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources():
    return {module_of(p): p for room in ROOMS for p in (ROOT / room).rglob("*.py") if "proto" not in p.parts}


def imported(path, known):
    """The modules of the project that the file imports, anywhere in it; not those that only type checkers see."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{name.name}" for name in node.names}
            found.update(inner & known.keys() or {node.module})
            if any(f"{node.module}.{name.name}" not in known for name in node.names):
                found.add(node.module)
    return {name for name in found if name in known and known[name] != path}


def circle(graph):
    """A list of modules each of which imports the next one, and the last the first; empty where there is none."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for other in sorted(graph[module]):
            if found := visit(other):
                return found
        path.pop()
        done.add(module)
        return []

    for module in sorted(graph):
        if found := visit(module):
            return found
    return []


def test_the_search_finds_circles():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_of_imports():
    known = sources()
    graph = {m: imported(p, known) for m, p in known.items() if str(p.relative_to(ROOT)) not in LAZY}
    graph |= {m: set() for m in known if m not in graph}
    found = circle(graph)
    assert not found, " -> ".join(found)
