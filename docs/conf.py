"""The site that `make docs` makes of these pages, with Sphinx; every warning is an error there."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import trpo_fast

project = "trpo_fast"
author = "trpo_fast authors"
version = release = trpo_fast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown", ".ipynb": "notebook"}
root_doc = "index"
nitpicky = False
default_role = "code"  # docstrings name arguments in single backticks
suppress_warnings = ["config.cache"]

myst_heading_anchors = 4  # the anchors that GitHub gives headings
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give types with shapes
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "trpo_fast"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False

REPOSITORY = Path(__file__).resolve().parent.parent
# Packages whose every public name the reference describes; a name that is also at the top stands there alone.
PUBLIC = [
    ".".join(path.parent.relative_to(REPOSITORY).parts)
    for path in sorted((REPOSITORY / "trpo_fast").rglob("__init__.py"))
    if "\n__all__ = " in path.read_text(encoding="utf-8")
]


class NotebookParser(MystParser):
    """Reads a notebook as the Markdown that it would be: cells of text, and of code with what they printed."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Fill the document from a notebook's JSON."""
        super().parse("\n\n".join(map(_markdown, json.loads(inputstring)["cells"])), document)


def _markdown(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source
    printed = "".join("".join(output.get("text", [])) for output in cell["outputs"])
    return f"```python\n{source}\n```" + (f"\n\n```text\n{printed}```" if printed else "")


INCLUDED = re.compile(
    r"<!-- site: (\S+) -->.*?<!-- end -->", re.S
)  # another page's text in the place of what is between
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)#\s]+)\)")
# Pages of the repository's root, by the page of the site that has their text.
ROOT_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put in the pages that stand in the root, and leave out links to folders, which a site does not have."""

    def from_root(match: re.Match[str]) -> str:
        text = (REPOSITORY / "docs" / match[1]).read_text(encoding="utf-8")
        text = re.sub(r"\]\((?!https?:|#|docs/)", "](../", text).replace("](docs/", "](")
        return text

    text = INCLUDED.sub(from_root, source[0])
    for root, page in ROOT_PAGES.items():
        text = text.replace(f"](../{root}", f"]({page}")
    source[0] = LINK.sub(lambda link: link[1] if (REPOSITORY / "docs" / link[2]).is_dir() else link[0], text)


def _references(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """References of a docstring as a list: their numbers begin again in each, which a page cannot have."""
    text = re.sub(r"\[(\d)\]_", r"[\1]", re.sub(r"^( *)\.\. \[(\d)\] ", r"\1-  [\2] ", "\n".join(lines), flags=re.M))
    lines[:] = text.split("\n")


def _names_of_the_top(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Say of a package which of its names are described at the top."""
    both = [own for own in getattr(obj, "__all__", ()) if own in trpo_fast.__all__] if what == "module" else []
    if both and name != "trpo_fast":
        lines += [
            "Also here, and described at the top: " + ", ".join(f":obj:`~trpo_fast.{own}`" for own in both) + ".",
            "",
        ]


def _types(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Types as code: they are words with shapes, and no names to be looked up."""
    lines[:] = [re.sub(r"^( *:(?:var)?type [^:]+:) ([^`]+)$", r"\1 ``\2``", line) for line in lines]


def _skip(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Of a package, leave out what the top has as well."""
    package = app.env.current_document.autodoc_module
    if what == "module" and package != "trpo_fast" and name in trpo_fast.__all__:
        return getattr(trpo_fast, name) is member or None
    return None


class _Page(HTMLParser):
    """The anchors of a page, and what it points at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value or "")
            elif name in ("href", "src") and not re.match(r"[a-z]+:", value or ""):
                self.targets.append(value or "")


def _dead_links(folder: Path) -> Iterator[str]:
    pages = {path: _Page(path) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        for target in page.targets:
            name, _, anchor = unquote(target.partition("?")[0]).partition("#")
            to = (path.parent / name).resolve() if name else path
            if not to.exists() or (anchor and to in pages and anchor not in pages[to].anchors):
                yield f"{path.relative_to(folder)}: {target}"


def _check(app: Sphinx, exception: Exception | None) -> None:
    """Every public name has to be on the site, and every link has to lead somewhere."""
    if exception is not None or app.builder.name != "html":
        return
    described = {name for name, *_ in app.env.domains["py"].get_objects()}
    missing = [
        f"{package}.{name}"
        for package in PUBLIC
        for name in importlib.import_module(package).__all__
        if not {f"{package}.{name}", f"trpo_fast.{name}"} & described
    ]
    if missing:
        raise ExtensionError(f"public names that no page describes: {', '.join(missing)}")
    dead = sorted(set(_dead_links(Path(app.outdir).resolve())))
    if dead:
        raise ExtensionError("links that lead nowhere:\n" + "\n".join(dead))


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.add_source_parser(NotebookParser)
    app.connect("source-read", _read)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _references, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _names_of_the_top)
    app.connect("autodoc-process-docstring", _types, priority=600)  # after it
    app.connect("build-finished", _check)
