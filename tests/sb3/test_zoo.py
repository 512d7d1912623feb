"""The plug-in for rl_zoo3, by a module in its place that has what the plug-in touches."""

import importlib
import sys
from types import ModuleType

import pytest

pytest.importorskip("sb3_contrib")

import sb3_contrib

from trpo_fast.sb3 import TRPO


def test_one_import_puts_the_class_in_the_zoos_table(monkeypatch):
    zoo = ModuleType("rl_zoo3")
    zoo.ALGOS = {"trpo": sb3_contrib.TRPO, "tqc": sb3_contrib.TQC}
    monkeypatch.setitem(sys.modules, "rl_zoo3", zoo)
    monkeypatch.delitem(sys.modules, "trpo_fast.sb3.zoo", raising=False)
    importlib.import_module("trpo_fast.sb3.zoo")
    assert zoo.ALGOS == {"trpo": TRPO, "tqc": sb3_contrib.TQC}
    assert issubclass(TRPO, sb3_contrib.TRPO)  # which the zoo's search and its files take it for
    del sys.modules["trpo_fast.sb3.zoo"]
