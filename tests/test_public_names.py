"""Every public name says in a plain sentence what it is."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [
    ".".join(path.parent.relative_to(ROOT).parts)
    for path in sorted((ROOT / "trpo_fast").rglob("__init__.py"))
    if "\n__all__ = " in path.read_text(encoding="utf-8")
]


def documented(value):
    """(name, object) of a class or function, and of what a class defines for everybody."""
    if not callable(value) or not hasattr(value, "__doc__"):
        return
    yield "", value
    for name, member in vars(value).items() if inspect.isclass(value) else ():
        member = getattr(member, "fget", getattr(member, "__func__", member))
        if not name.startswith("_") and inspect.isfunction(member):
            yield f".{name}", member


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring_whose_first_sentence_is_one(package):
    if package == "trpo_fast.sb3":
        pytest.importorskip("sb3_contrib")
    module = importlib.import_module(package)
    wrong = []
    for name in module.__all__:
        for member, value in documented(getattr(module, name)):
            first = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")
            if not re.match(r"[A-Z`*]\S* \S+ ?.*\.$", first):
                wrong.append(f"{name}{member}: {first!r}")
    assert not wrong, "\n".join(wrong)


def test_the_reference_has_a_page_for_every_package_and_names_each_but_what_the_top_has():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    for package in PACKAGES:
        assert f".. automodule:: {package}\n" in pages
        module = importlib.import_module(package) if package != "trpo_fast.sb3" else pytest.importorskip(package)
        assert set(dir(module)) >= set(module.__all__), "autodoc lists what dir() has"
        for name in module.__all__:
            value = getattr(module, name)
            described = inspect.isclass(value) or inspect.isroutine(value)
            assert described or f".. py:data:: {name}\n" in pages, f"{package}.{name}"
