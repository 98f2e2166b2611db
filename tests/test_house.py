"""The walls of the house: which part may import which. A broken wall shows here, not in a year."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RANK = {"data_specs": 0, "pipeline": 1, "model": 2, "cli": 3}
KERNEL_MODULES = [
    "pipeline/normalize.py",
    "pipeline/normalize_kernel.py",
    "pipeline/order.py",
    "pipeline/augment.py",
    "pipeline/augment_kernel.py",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "pipeline/raw").glob("*.py"))),
]
MODULES = [
    path
    for part in ("data_specs", "pipeline", "model", "cli.py")
    for path in ([ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py")))
]


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which way they go"
            names.add(node.module or "")
    return names


def top_imports(path: Path) -> set[str]:
    """Packages imported when the file itself is imported."""
    tree = ast.parse(path.read_text())
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {
        (node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in nodes
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        part = name.split(".")[0]
        assert RANK.get(part, 0) <= RANK[own], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("module", KERNEL_MODULES)
def test_the_kernels_need_numpy_and_numba_only(module: str) -> None:
    heavy = {"torch", "dask", "zarr", "webdataset", "pandas"}
    assert not {name.split(".")[0] for name in imports(ROOT / module)} & heavy


def test_dask_lives_in_cluster_and_torch_in_batches_alone() -> None:
    for path in (ROOT / "pipeline").rglob("*.py"):
        packages = {name.split(".")[0] for name in imports(path)}
        assert "dask" not in packages or path.name == "cluster.py"
        assert "torch" not in packages or path.name in ("batch.py", "loader.py")


LIGHT = ("cli.py", "model/failure.py", "model/terminal.py", "pipeline/store/damage.py")


@pytest.mark.parametrize("path", LIGHT)
def test_the_command_line_starts_without_heavy_packages(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    modules = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    ours = {name for name in modules if name.split(".")[0] in RANK}
    assert {f"{name.replace('.', '/')}.py" for name in ours} <= set(LIGHT)
    assert top_imports(ROOT / path) - {name.split(".")[0] for name in ours} <= {
        "click",
        "collections",
        "contextlib",
        "errno",
        "itertools",
        "json",
        "math",
        "os",
        "pathlib",
        "re",
        "shlex",
        "signal",
        "sys",
        "time",
        "typing",
    }


def test_what_is_installed_is_what_is_here() -> None:
    """A folder that the wheel lacks works in a checkout, and fails for whoever installs it."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in MODULES if path.parent != ROOT}
    assert sorted(listed) == sorted(".".join(folder.parts) for folder in folders)
