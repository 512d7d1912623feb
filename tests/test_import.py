"""What `import trpo_fast` loads, and the names that others rely on."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

import trpo_fast

NAMES = (
    "Batch",
    "CheckpointCallback",
    "EvaluationResult",
    "MLPPolicy",
    "Status",
    "TRPO",
    "TRPOConfig",
    "backtracking_line_search",
    "conjugate_gradient",
    "fisher_matrix",
    "get_num_threads",
    "make_engine",
    "set_num_threads",
    "trust_region_step",
)
# name -> parameters that a caller may use by name, in order where they are positional
SIGNATURES = {
    "conjugate_gradient": "A b max_iter rtol atol damping preconditioner x0 reorthogonalize callback",
    "backtracking_line_search": "objective theta step max_kl backtrack_factor max_backtracks",
    "TRPO": "env num_envs vectorization env_kwargs seed config",
    "TRPO.learn": "self total_timesteps callback progress_bar reset_num_timesteps",
    "TRPO.predict": "self observation state episode_start deterministic",
    "TRPO.evaluate": "self episodes deterministic seed",
    "TRPO.save": "self path",
    "TRPO.load": "path env",
    "MLPPolicy": "observation_space action_space hidden_sizes activation",
    "Batch": "observations actions advantages log_probs action_masks",
    "make_engine": "policy",
    "fisher_matrix": "policy observations",
    "trust_region_step": "engine max_kl damping cg_iterations",
}

HEAVY = {"torch", "gymnasium", "scipy", "jax", "safetensors", "matplotlib", "tqdm", "tensorboard", "stable_baselines3"}
CALLBACKS = (
    *("Callback", "CheckpointCallback", "EvaluationCallback", "EveryNTimesteps", "ProgressBar", "RunLogger"),
    "StopAtReturn",
)
RANKS = ("DistributedEngine", "RankError", "Ranks")
NEED_TORCH = ("TRPO", "EvaluationResult", "MLPPolicy", "MLPCritic", "make_engine", "fisher_matrix", *CALLBACKS, *RANKS)


def loaded_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_the_package_loads_no_heavy_library():
    loaded = loaded_after("import trpo_fast")
    assert "trpo_fast" in loaded
    assert not loaded & HEAVY
    # ours: the kernels' table, what tells threadpoolctl of their threads, and what Ctrl-C does to the command
    ours = {name for name in loaded if name.split(".")[0] == "trpo_fast"}
    assert ours == {
        "trpo_fast",
        "trpo_fast._core",
        "trpo_fast._core.library",
        "trpo_fast.threadpool",
        "trpo_fast.starting",
    }


def test_solving_loads_no_torch():
    loaded = loaded_after(
        "import numpy, trpo_fast\n"
        "trpo_fast.conjugate_gradient(numpy.eye(3), numpy.ones(3)); trpo_fast.get_num_threads()"
    )
    assert not loaded & HEAVY


@pytest.mark.parametrize("name", NAMES)
def test_name_exists_and_is_listed(name):
    assert getattr(trpo_fast, name) is not None
    assert name in dir(trpo_fast)
    assert name in trpo_fast.__all__


def test_every_listed_name_exists():
    for name in trpo_fast.__all__:
        assert hasattr(trpo_fast, name), name


def test_nothing_but_public_names_is_listed():
    assert sorted(dir(trpo_fast)) == sorted([*trpo_fast.__all__, "__version__"])
    assert len(set(dir(trpo_fast))) == len(dir(trpo_fast))


@pytest.mark.parametrize("name", trpo_fast.__all__)
def test_a_name_that_cannot_be_loaded_says_what_to_install_and_no_other_name_needs_it(name):
    program = f"import sys; sys.modules['torch'] = sys.modules['gymnasium'] = None\nfrom trpo_fast import {name}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if name not in NEED_TORCH:
        assert done.returncode == 0, done.stderr
        return
    *_, last = done.stderr.splitlines()
    assert re.fullmatch(
        rf"ImportError: trpo_fast\.{name} needs (torch|gymnasium), .*pip install torch gymnasium.*", last
    )


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = trpo_fast.no_such_name


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_starts_as_documented(name):
    target = trpo_fast
    for part in name.split("."):
        target = getattr(target, part)
    wanted = SIGNATURES[name].split()
    named = [one.name for one in inspect.signature(target).parameters.values() if one.kind is not one.VAR_POSITIONAL]
    assert named[: len(wanted)] == wanted


def test_version_is_that_of_the_installed_distribution():
    assert trpo_fast.__version__ == version("trpo-fast")


@pytest.mark.parametrize(
    "command", ["plot a a --out a.svg", "plot a --group seed --out a.html", "report a --out report.html"]
)
def test_plots_and_reports_load_neither_torch_nor_gymnasium(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text('{"environment": {"id": "Hopper-v5"}, "seed": 0, "config": {}}')
    header = "time/total_timesteps,time/time_elapsed,rollout/ep_rew_mean,train/status\n"
    (tmp_path / "a" / "progress.csv").write_text(header + "1000,1.0,5.0,0\n2000,2.0,6.0,0\n")
    loaded = loaded_after(f"from trpo_fast.cli.main import main; assert main({command.split()}) == 0")
    assert "matplotlib" in loaded and not loaded & {"torch", "gymnasium", "pandas"}


def test_what_draws_is_loaded_when_something_is_drawn():
    modules = "trpo_fast.cli.plot, trpo_fast.cli.report"
    assert not loaded_after(f"import {modules}") & {"torch", "gymnasium", "matplotlib"}
