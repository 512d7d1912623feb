"""The documents say what the code does."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from bench import action_map, learning_report, report
from tests.agents import random_agent
from trpo_fast.algorithm import config
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.benchmarks import HARD_PROBLEMS
from trpo_fast.cli.arguments import make_parser
from trpo_fast.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


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
    assert {match[2] for match in report.MARKS.finditer(readme + page)} == {*report.SECTIONS, "returns"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_says_that_ratios_travel(page):
    assert not re.search(r"ratios\s+travel", page.read_text(encoding="utf-8"), re.IGNORECASE)


@pytest.mark.parametrize("path", learning_report.PAGES, ids=lambda path: path.name)
def test_learning_tables_are_those_that_the_results_make(path):
    page = path.read_text(encoding="utf-8")
    assert page == learning_report.render(page), "run `python -m bench.learning_report`"


def test_the_table_of_action_maps_is_the_one_that_the_results_make():
    page = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    assert action_map.table(action_map.read()) in page, "run `python -m bench.action_map --table`"


def text_of(page: Path) -> str:
    """A page's Markdown; of a notebook, its cells of text."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda p: p.name)
def test_files_that_a_page_points_at_exist(page):
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(ROOT / page), re.M | re.S)


def shorter(code: str) -> str:
    """An example without its long training."""
    return re.sub(r"\.learn\([\d_]+", ".learn(2_048", code)


# Pages whose examples are held to more than that they run, below.
EXAMINED = {f"docs/{name}.md" for name in ("backend", "building", "custom_policies", "deployment", "runs", "scaling")}
OTHERS = sorted({str(page.relative_to(ROOT)) for page in PAGES if blocks(str(page.relative_to(ROOT)))} - EXAMINED)


@pytest.mark.parametrize("page", OTHERS)
def test_python_on_a_page_runs(page, tmp_path, monkeypatch):
    if "trpo_fast.sb3 import" in (ROOT / page).read_text(encoding="utf-8"):
        pytest.importorskip("sb3_contrib")
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        exec(compile(shorter(block), page, "exec"), {"__name__": "page"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_runs_and_keeps_what_it_printed(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    printed = runpy.run_path(str(ROOT / "docs" / "run_notebooks.py"))["run"](path, shorter)
    assert [bool(cell["outputs"]) for cell in cells] == [bool(text) for text in printed], "run docs/run_notebooks.py"


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda p: p.name)
def test_commands_on_a_page_are_understood(page):
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```", text_of(page), re.M | re.S):
        command = r"^(?:\S*/|torchrun .*-m )?(?:trpo-fast|trpo_fast|python -m trpo_fast) (.*)"
        for line in re.findall(command, block.replace("\\\n", " "), re.M):
            if "[" in line:  # a synopsis
                continue
            try:
                make_parser().parse_args(shlex.split(line.partition(" | ")[0], comments=True))
            except SystemExit as end:
                assert end.code == 0, line


def test_the_gallery_is_the_one_that_the_results_make():
    page = runpy.run_path(str(ROOT / "docs" / "generate_gallery.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["render"](), "run `python docs/generate_gallery.py`"


def test_tests_that_the_ten_ways_name_exist_and_its_problems_are_those_of_the_tests():
    page = (ROOT / "docs" / "ten_ways.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.M)[1:]
    for number, section in enumerate(sections[:10], 1):
        named = re.findall(r"^- `(\S+)::(\w+)`$", section, re.M)
        assert section.startswith(f"{number}. ") and named
        for path, name in named:
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.M), name
    rows = [f"| {name} | {made.__doc__} | {made.status.name} |" for name, made in HARD_PROBLEMS.items()]
    assert re.findall(r"^\| (?!name|---).*", sections[10], re.M) == rows


def test_names_of_stable_baselines3_on_their_page_are_those_that_errors_point_at():
    page = (ROOT / "docs" / "coming_from_sb3.md").read_text(encoding="utf-8")
    assert "\n".join(f"| `{name}` | {ours} |" for name, ours in config._OTHERS.items()) in page


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


@pytest.mark.parametrize("block", blocks("docs/scaling.md"), ids=["training", "engine"])
def test_python_in_the_page_on_scaling_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace("20_000", "4_096"), "scaling.md", "exec"), {})


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
    # As the policy emits them: the sides of Pendulum-v1 are at 2, so that the environment gets 0.5.
    names = {"TRPO": partial(TRPO, preset=None, seed=1), "torch": torch, "actions": torch.full((500, 1), 0.25)}
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
    exports = [line for line in commands if line.startswith("trpo-fast export")]
    assert [main(export.split()[1:]) for export in exports] == [0, 0]
    names = {}
    for block in blocks("docs/deployment.md"):
        exec(compile(block, "deployment.md", "exec"), names)
    np.testing.assert_array_equal(names["actions"][0], agent.predict(np.zeros(17), deterministic=True)[0])
    np.testing.assert_allclose(names["mean"][0].clip(-1, 1), names["actions"][0], rtol=1e-5)
