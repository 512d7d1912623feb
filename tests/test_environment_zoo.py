"""The committed rows of other people's environments, and the page that shows them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import environment_zoo
from bench.zoo_cases import CASES

PAGE = Path(__file__).parents[1] / "docs" / "environments.md"
OUT = environment_zoo.RESULTS / "environment_zoo.json"


@pytest.fixture(scope="module")
def rows():
    return environment_zoo.read_rows(OUT)


def test_every_package_has_a_row_of_the_same_commit(rows):
    assert list(rows) == [case.package for case in CASES]
    assert len({row["commit"] for row in rows.values()}) == 1


def test_the_page_and_the_table_show_the_committed_rows(rows):
    assert environment_zoo.table(rows) in PAGE.read_text(encoding="utf-8")
    with OUT.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        read = {row["package"]: row for row in csv.DictReader(file)}
    assert {package: row["result"] for package, row in read.items()} == {
        package: environment_zoo.result_of(row) for package, row in rows.items()
    }


def test_enough_packages_of_every_kind_work(rows):
    working = [row for row in rows.values() if environment_zoo.result_of(row).startswith("works")]
    assert len(working) >= 25
    assert len({row["field"] for row in working}) >= 8
    for kind, wanted in {"dict": 5, "raw_units": 5, "masks": 3}.items():
        assert sum(row[kind] for row in working) >= wanted, kind
