"""Every example runs, and what it prints is what it promises."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name, *arguments):
    """What the example prints, line by line."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_every_example_has_a_test_and_says_how_it_is_run():
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'run("{path.stem}"' in tests
        assert f"python examples/{path.name}" in path.read_text(encoding="utf-8")


def test_the_hand_written_loop_learns():
    *iterations, last = run("natural_gradient", 6)
    returns = [float(re.search(r"return +([\d.]+)", line)[1]) for line in iterations]
    assert len(returns) == 6 and all("SUCCESS" in line for line in iterations)
    assert float(last.split()[-1]) > 3 * returns[0]


def test_a_bound_on_a_cost_holds_while_the_agent_learns():
    free, bounded, refused = run("bounded_cost", 40_000)
    found = [re.search(r"return +([\d.]+), fuel ([\d.]+)", line) for line in (free, bounded)]
    (far, burnt), (near, kept) = (map(float, match.groups()) for match in found)
    assert far > 90 and burnt > 0.9
    assert near > 30 and kept < 0.55
    assert re.fullmatch(r"steps that were refused: \d+; that saved fuel: \d+", refused)


def test_the_sparse_problem_is_solved_alike_by_both():
    plain, fast, scipys, last = run("scipy_problem", 30)
    counts = [int(re.search(r"(\d+) iterations", line)[1]) for line in (plain, fast, scipys)]
    assert counts[1] < counts[0] / 3
    assert abs(counts[0] - counts[2]) <= 2
    assert last == "all agree"


def test_the_beta_policy_takes_trust_region_steps():
    engine, update, last = run("custom_policy", 4_096)
    assert engine == "autograd engine: BetaPolicy is not an MLPPolicy"
    assert update.startswith("last update: SUCCESS")
    assert re.fullmatch(r"mean return -\d+ before, -\d+ after 4,096 steps", last)


def test_both_preconditioners_save_products():
    plain, function, compiled, _ = run("custom_preconditioner", 500)
    products = [int(re.search(r"(\d+) products", line)[1]) for line in (plain, function, compiled)]
    assert max(products[1:]) <= products[0] / 2


def test_jax_solves_newtons_equations_or_says_why_not():
    lines = run("jax_operator", 200)
    if importlib.util.find_spec("jax") is None:
        assert lines == ["skipped: needs jax, which is not installed"]
        return
    factor = float(lines[-1].split()[-1])
    assert len(lines) == 9 and factor > 1e4
