"""Errors of arguments have one form: ``NAME: VALUE given; want WHAT``."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "trpo_fast"
SOURCES = sorted(path for suffix in ("py", "pyx") for path in PACKAGE.rglob(f"*.{suffix}"))
RAISED = re.compile(r"raise \w*Error\((.*?)\)(?: from \w+)?$", re.DOTALL | re.MULTILINE)
OTHER_FORMS = re.compile(r"[:;,] wanted |[:;,] got |must (?:be|have|lie) |given, want ")


def dialects(text):
    return [raised[:120] for raised in RAISED.findall(text) if OTHER_FORMS.search(raised)]


def test_other_forms_are_found():
    assert dialects('    raise ValueError(f"n: wanted 1 to 3, got {n}")\n    return n\n')
    assert dialects('    raise TypeError(\n        f"n must be an integer, not {n!r}"\n    )\n\ndef f():\n')
    assert not dialects('    raise ValueError(f"n: {n} given; want 1 to 3")\n    return n\n')


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_messages_have_the_one_form(path):
    assert dialects(path.read_text(encoding="utf-8")) == []
