"""The documents say what the code does."""

from __future__ import annotations

import re
import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from bench import action_map, learning_report, report
from tests.agents import random_agent
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_configuration_page_is_the_one_that_the_declarations_make():
    page = runpy.run_path(str(ROOT / "docs" / "generate_configuration.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["render"](), "run `make format`"


def test_the_page_of_networks_is_the_table_that_the_tests_run():
    page = runpy.run_path(str(ROOT / "docs" / "generate_networks.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["render"]()


def test_the_page_of_the_report_has_the_symptoms_that_the_command_knows():
    page = runpy.run_path(str(ROOT / "docs" / "generate_report.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["render"](), "run `make format`"


@pytest.mark.parametrize("path", report.PAGES, ids=lambda path: path.name)
def test_benchmark_tables_are_those_that_the_results_make(path):
    page = path.read_text(encoding="utf-8")
    assert page == report.render(page, report.RESULTS), "run `make report`"


def test_every_table_of_times_comes_from_results_that_name_their_cpu():
    readme, page = (path.read_text(encoding="utf-8") for path in reversed(report.PAGES))
    measured = readme[readme.index("## Measured") : readme.index("Returns, deterministic")]
    assert "|" not in report.MARKS.sub("", measured)
    sections = page[page.index("## The compiled core") : page.index("## Without a clock")]
    assert "|" not in report.MARKS.sub("", sections)
    assert {match[2] for match in report.MARKS.finditer(readme + page)} == set(report.SECTIONS)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_says_that_ratios_travel(page):
    assert not re.search(r"ratios\s+travel", page.read_text(encoding="utf-8"), re.IGNORECASE)


def test_learning_tables_are_those_that_the_results_make():
    page = learning_report.PAGE.read_text(encoding="utf-8")
    assert page == learning_report.render(page), "run `python -m bench.learning_report`"


def test_the_table_of_action_maps_is_the_one_that_the_results_make():
    page = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    assert action_map.table(action_map.read()) in page, "run `python -m bench.action_map --table`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_a_page_points_at_exist(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("block", blocks("docs/backend.md"), ids=lambda b: b.splitlines()[0][:40])
def test_python_in_the_backend_page_runs_and_is_right(block):
    if "import jax" in block:
        pytest.importorskip("jax", reason="jax is not installed")
    assert re.search("^assert ", block, re.M)
    exec(compile(block, "backend.md", "exec"), {})


@pytest.mark.parametrize("block", blocks("docs/building.md"), ids=lambda b: b.splitlines()[-1][:40])
def test_python_in_the_page_on_building_runs_and_is_right(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search("^assert ", block, re.M)
    exec(compile(block, "building.md", "exec"), {})


@pytest.mark.parametrize(
    "block", blocks("docs/runs.md") + blocks("docs/callbacks.md"), ids=lambda b: b.splitlines()[0][:40]
)
def test_python_in_the_pages_on_runs_and_callbacks_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "runs.md", "exec"), {"__name__": "runs"})


@pytest.mark.parametrize("block", blocks("docs/recurrent.md"), ids=["built-in", "own"])
def test_python_in_the_page_on_recurrent_policies_runs(block):
    exec(compile(block, "docs/recurrent.md", "exec"), {})


@pytest.mark.parametrize("block", blocks("docs/scaling.md"), ids=["training", "engine"])
def test_python_in_the_page_on_scaling_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace("20_000", "4_096"), "scaling.md", "exec"), {})


@pytest.mark.parametrize("block", blocks("README.md"), ids=lambda b: b.splitlines()[0][:40])
def test_python_in_the_readme_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shorter = re.sub(r"\.learn\([\d_]+\)", ".learn(4_096)", block)
    exec(compile(shorter, "README.md", "exec"), {})
    assert shorter != block or ".learn(" not in block, "a README example that trains for long cannot be tested"


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"^make (\w+)", "\n".join(blocks("README.md", "sh")), re.M))
    assert named
    assert named <= targets


def test_the_example_of_a_custom_policy_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block, _ = blocks("docs/custom_policies.md")
    names = {}
    exec(compile(block.replace("20_000", "2_048"), "custom_policies.md", "exec"), names)
    assert names["agent"].engine.name == "autograd"
    assert names["agent"].last_update.status == 0
    for ours, theirs in zip(names["agent"].policy.parameters(), names["again"].policy.parameters(), strict=True):
        assert (ours == theirs).all()


def test_the_example_of_a_cloned_policy_runs():
    _, block = blocks("docs/custom_policies.md")
    names = {"TRPO": partial(TRPO, preset=None, seed=1), "torch": torch, "actions": torch.full((500, 1), 0.5)}
    names["demonstrations"] = np.random.default_rng(0).normal(2.0, 3.0, (500, 3)).astype(np.float32)
    shorter = block.replace("Hopper-v5", "Pendulum-v1").replace("1_000_000", "2_048")
    exec(compile(shorter, "custom_policies.md", "exec"), names)
    agent = names["agent"]
    assert agent.num_updates == 1
    assert abs(agent.predict(names["demonstrations"], deterministic=True)[0] - 0.5).mean() < 0.25
    agent.close()


def test_the_examples_of_deployment_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "cheetah").mkdir(parents=True)
    agent = random_agent(Box(-np.inf, np.inf, (17,), np.float64), Box(-1, 1, (6,), np.float32))
    agent.save("runs/cheetah/model.trpo")
    commands = "\n".join(blocks("docs/deployment.md", "sh")).splitlines()
    (export,) = (line for line in commands if line.startswith("trpo-fast export"))
    assert main(export.split()[1:]) == 0
    names = {}
    for block in blocks("docs/deployment.md"):
        exec(compile(block, "deployment.md", "exec"), names)
    np.testing.assert_array_equal(names["actions"][0], agent.predict(np.zeros(17), deterministic=True)[0])
    np.testing.assert_allclose(names["mean"][0].clip(-1, 1), names["actions"][0], rtol=1e-5)
