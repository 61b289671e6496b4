"""What the README and the top level say is what is there."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from ustack.cli.help import TOPICS

ROOT = Path(__file__).parents[2]
SOURCE_DIRS = ("ustack", "ustack_c", "tests", "tools")


def readme_tree() -> list[str]:
    """Return the paths of the tree that README.md draws: every ``name/`` that leads a line."""
    text = (ROOT / "README.md").read_text()
    block = text.split("<!-- tree -->")[1].split("```")[1]
    paths: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in block.splitlines():
        match = re.match(r"(?P<indent> *)(?P<name>[\w./-]+/)(?=\s|$)", line)
        if not match:
            continue
        indent = len(match["indent"])
        while parents and parents[-1][0] >= indent:
            parents.pop()
        path = "".join(p for _, p in parents) + match["name"]
        parents.append((indent, match["name"]))
        paths.append(path)
    return paths


def test_every_folder_that_the_readme_draws_exists():
    paths = readme_tree()
    assert len(paths) > 10
    assert [p for p in paths if not (ROOT / p).is_dir()] == []


def test_every_package_is_in_the_readme():
    drawn = {p.rstrip("/") for p in readme_tree()}
    packages = {f"ustack/{p.parent.name}" for p in ROOT.glob("ustack/*/*.py")}
    assert sorted(packages - drawn) == []


def test_the_readmes_links_lead_to_the_pages_that_help_prints():
    links = re.findall(r"\]\((?!http)([^)]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).is_file()] == []
    pages = {path.stem for path in (ROOT / "ustack" / "docs").iterdir()}
    assert pages == set(TOPICS)
    assert {f"ustack/docs/{page}.md" for page in pages - {"questions"}} == set(links)


def test_the_top_level_holds_only_what_belongs_there():
    allowed = {
        "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", *SOURCE_DIRS, "build", "dist",
    }  # fmt: skip
    names = {n for n in os.listdir(ROOT) if not n.startswith(".") and not n.endswith(".egg-info")}
    assert sorted(names - allowed) == []


@pytest.mark.parametrize("tool", ["demo", "test", "check", "bench"])
def test_every_tool_can_be_run(tool):
    assert os.access(ROOT / "tools" / tool, os.X_OK)


def test_ci_runs_the_tests():
    assert "tools/test" in (ROOT / ".ci" / "run").read_text()


def functions(path: Path) -> list[tuple[str, int]]:
    """Return each function of a file with its length in lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append((f"{path.name}:{node.name}", (node.end_lineno or 0) - node.lineno + 1))
    return found


def test_functions_stay_short():
    long_ones = [
        (name, length)
        for path in ROOT.glob("ustack/**/*.py")
        for name, length in functions(path)
        if length > 75
    ]
    assert long_ones == []
