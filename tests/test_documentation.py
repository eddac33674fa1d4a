import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_dependency_is_written_down_with_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    required = [*project["dependencies"], *(package for extra in extras for package in extra)]
    names = {re.split(r"[\[<>=]", package)[0] for package in required}
    page = (ROOT / "docs" / "decisions" / "dependencies.md").read_text()
    cells = set(re.findall(r"[\w-]+", " ".join(re.findall(r"^\|(.*)\|", page, re.M))))
    assert names <= cells


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page not in navigation] == []
