"""Imports only go down, enforced on the syntax tree of every module; files and functions stay short."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1] / "vemdiffuse_pipe"

# From the top down. A module may import from lower levels and from its own package, never from another
# package of its own level.
LEVELS = (
    ("__init__", "__main__"),
    ("cli",),
    ("demo", "testing"),
    ("comparison", "handoff"),
    ("running", "training"),
    ("pricing", "monitor", "holdout"),
    ("output",),
    ("records",),
    ("cluster",),
    ("render",),
    ("survey",),
    ("plan", "exchange"),
    ("storage", "models", "evaluation", "phantom"),
    ("config", "volume"),
    ("geometry", "texts"),
    ("errors",),
)
LEVEL = {package: len(LEVELS) - i for i, packages in enumerate(LEVELS) for package in packages}

DASK = {"dask", "distributed", "dask_jobqueue"}
KNOW_DASK = {"running", "cluster"}
KNOW_TORCH = {
    "testing",
    "holdout",
    "models",
    "exchange",
    "training",
    "render",
    "running",
    "comparison",
    "pricing",
    "cluster",
}
MAX_LINES = 400
MAX_FUNCTION_LINES = 40  # its signature left out: options of commands are parameters

MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))


def package_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def source(module: Path) -> str:
    return (ROOT / module).with_suffix(".py").read_text()


def imports(module: Path) -> Iterator[str]:
    """Full names of what a module imports, at its top or anywhere in it."""
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(module: Path) -> Iterator[str]:
    """What a module imports of this package, without the package's name."""
    prefix = "vemdiffuse_pipe."
    for name in imports(module):
        if name.startswith(prefix):
            yield name.removeprefix(prefix)


def allowed(importer: str, imported: str) -> bool:
    here, there = package_of(importer), package_of(imported)
    return here == there or LEVEL[there] < LEVEL[here]


def wrong_imports(is_wrong: Callable[[str, str], bool]) -> list[str]:
    """'module imports name' for every import of ours for which is_wrong(module, name)."""
    pairs = [(".".join(module.parts), name) for module in MODULES for name in ours(module)]
    return [f"{module} imports {name}" for module, name in pairs if is_wrong(module, name)]


def foreign_imports(packages: set[str], but_for: set[str]) -> list[str]:
    """'module imports package' for every import of one of `packages` outside our packages `but_for`."""
    return [
        f"{module} imports {name}"
        for module in MODULES
        for name in imports(module)
        if package_of(name) in packages and module.parts[0] not in but_for
    ]


def graph() -> dict[str, set[str]]:
    """Modules and what they import of ours, at the top or lazily."""
    names = {".".join(module.parts) for module in MODULES}
    return {
        ".".join(module.parts): {
            found for name in ours(module) for found in (name, name.rpartition(".")[0]) if found in names
        }
        for module in MODULES
    }


def circles(imports_of: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other: the strongly connected components of more than one."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            new = imports_of[left.pop()] - found
            found |= new
            left += new
        return found

    reach = {module: reached(module) for module in imports_of}
    groups = {frozenset(m for m in reach[module] if module in reach[m]) for module in reach}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not circles(graph())


def test_the_rule_finds_a_circle_through_another_module() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_every_module_has_a_level() -> None:
    assert {module.parts[0] for module in MODULES} <= set(LEVEL)


def test_imports_only_go_down() -> None:
    assert not wrong_imports(lambda module, name: package_of(name) in LEVEL and not allowed(module, name))


def test_plan_knows_models_by_their_card_only() -> None:
    assert not wrong_imports(
        lambda module, name: (
            package_of(module) == "plan"
            and package_of(name) == "models"
            and not name.startswith("models.card")
        )
    )


def test_only_running_and_what_gets_it_workers_know_dask() -> None:
    assert not foreign_imports(DASK, but_for=KNOW_DASK)


def test_torch_is_imported_by_models_and_what_uses_them_only() -> None:
    assert not foreign_imports({"torch", "safetensors"}, but_for=KNOW_TORCH)


def test_the_rule_refuses_an_import_upwards_or_sideways() -> None:
    assert not allowed("geometry", "storage.source")
    assert not allowed("storage", "models.card")
    assert not allowed("models", "evaluation")
    assert not allowed("render.block", "running.events")
    assert allowed("plan.plan", "models.card")


def test_files_are_short() -> None:
    lengths = {str(m): len(source(m).splitlines()) for m in MODULES}
    assert not {module: n for module, n in lengths.items() if n > MAX_LINES}


def test_functions_fit_a_screen() -> None:
    lengths = {
        f"{module}: {node.name}": (node.end_lineno or 0) - node.body[0].lineno + 1
        for module in MODULES
        for node in ast.walk(ast.parse(source(module)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES}
