"""Curves of several seeds; what ``trpo-fast plot`` does for single runs is in test_commands."""

import json
import re

import pytest

HEADER = "time/total_timesteps,time/time_elapsed,rollout/ep_rew_mean\n"


@pytest.fixture
def make_run(tmp_path):
    """A run's folder with a constant training return at 1,000 and 2,000 timesteps."""

    def make(name, seed, value, env="Hopper-v5", **settings):
        folder = tmp_path / name
        folder.mkdir()
        content = {"environment": {"id": env}, "seed": seed, "config": {"gamma": 0.99, **settings}}
        (folder / "config.json").write_text(json.dumps(content))
        rows = [f"{steps},1.0,{value}\n" for steps in (1000, 2000)]
        (folder / "progress.csv").write_text(HEADER + "500,0.5,\n" + "".join(rows))

    return make


def test_seeds_of_one_setting_are_one_curve_with_an_interval(command, make_run, tmp_path):
    for seed, value in enumerate((1.0, 2.0, 3.0, 4.0)):
        make_run(f"a{seed}", seed, value)
    result = command("plot", "a0", "a1", "a2", "a3", "--group", "seed")
    line, out = result.out.splitlines()
    # The middle half of 1, 2, 3, 4 is 2 and 3; resamples of four reach from near all 1 to near all 4.
    assert line.startswith("Hopper-v5: 2.5 at 2,000 timesteps, interquartile mean of 4 seeds, 95% interval 1")
    assert out == "curves.png" and (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_groups_are_named_by_the_settings_in_which_they_differ(command, make_run):
    for seed in range(3):
        make_run(f"a{seed}", seed, 1.0)
        make_run(f"b{seed}", seed, 2.0, gamma=0.9)
    result = command("plot", "a0", "b0", "a1", "b1", "a2", "b2", "--group", "seed")
    first, second, improvement, _ = result.out.splitlines()
    assert first.startswith("Hopper-v5, gamma 0.99: 1 at") and "interval 1 to 1" in first
    assert second.startswith("Hopper-v5, gamma 0.9: 2 at") and "interval 2 to 2" in second
    assert improvement == (
        "gamma 0.99 beats gamma 0.9 with probability 0.00, 95% interval 0.00 to 0.00 (Hopper-v5 at 2,000 timesteps)"
    )


def test_runs_that_step_their_copies_elsewhere_to_the_same_bits_are_of_one_group(command, make_run, tmp_path):
    for seed, stepping in enumerate([(None, None), ("sync", None), ("workers", 2), ("vector", None)]):
        make_run(f"a{seed}", seed, 1.0)
        path = tmp_path / f"a{seed}" / "config.json"
        content = json.loads(path.read_text())
        content["environment"] |= dict(zip(("vectorization", "num_workers"), stepping, strict=True))
        path.write_text(json.dumps(content))
    first, second, _ = command("plot", "a0", "a1", "a2", "a3", "--group", "seed").out.splitlines()
    assert "mean of 3 seeds" in first and "mean of 1 seed;" in second


def test_runs_of_before_a_setting_are_of_one_group_with_those_that_have_what_there_was(command, make_run):
    """Of two runs config.json has no critic_gae_lambda: there was one lambda for both, and no relative_damping."""
    for seed in range(3):
        later = {"critic_gae_lambda": 0.95, "relative_damping": 0.0} if seed == 2 else {}
        make_run(f"a{seed}", seed, 1.0, gae_lambda=0.95, **later)
    first, _ = command("plot", "a0", "a1", "a2", "--group", "seed").out.splitlines()
    assert first.startswith("Hopper-v5: 1 at") and "mean of 3 seeds" in first


def test_fewer_than_three_seeds_get_no_interval_and_it_says_so(command, make_run):
    make_run("a", 0, 1.0)
    make_run("b", 1, 3.0)
    line = command("plot", "a", "b", "--group", "seed").out.splitlines()[0]
    assert line.endswith("2 at 2,000 timesteps, interquartile mean of 2 seeds; no interval, which needs 3 seeds")


def test_the_same_run_twice_is_refused(command, make_run):
    make_run("a", 7, 1.0)
    make_run("b", 7, 1.0)
    result = command("plot", "a", "b", "--group", "seed")
    assert result.code == 2
    assert "a and b have the same settings and the same seed, 7; want one of them" in result.err


def test_nan_counts_as_the_lowest_return_of_the_environment_and_is_named(command, make_run):
    for seed, value in enumerate((4.0, 6.0, float("nan"))):
        make_run(f"a{seed}", seed, value)
    make_run("other", 0, -5.0, gamma=0.9)
    line = command("plot", "a0", "a1", "a2", "other", "--group", "seed").out.splitlines()[0]
    assert "a2 has NaN, which counts as the lowest return, -5" in line
    # Of -5, 4, 6: the middle third, and a quarter of either other one.
    assert line.startswith(f"Hopper-v5, gamma 0.99: {(-5 / 4 + 4 + 6 / 4) / 1.5:.4g} at")


def test_runs_without_any_return_are_refused(command, make_run):
    make_run("a", 0, float("nan"))
    result = command("plot", "a", "--group", "seed")
    assert result.code == 2 and "every return of Hopper-v5 is NaN" in result.err
    with open("a/progress.csv", "w") as file:
        file.write(HEADER + "1000,1.0,\n")
    result = command("plot", "a", "--group", "seed")
    assert result.code == 2 and "a has no finished episode" in result.err


def test_a_run_that_is_shorter_ends_the_curve(command, make_run):
    for seed in range(3):
        make_run(f"a{seed}", seed, 1.0)
    with open("a1/progress.csv", "w") as file:
        file.write(HEADER + "1000,1.0,1\n1500,2.0,1\n")
    assert " at 1,500 timesteps" in command("plot", "a0", "a1", "a2", "--group", "seed").out


def test_runs_without_a_timestep_in_common_are_refused(command, make_run):
    make_run("a", 0, 1.0)
    make_run("b", 1, 1.0)
    with open("b/progress.csv", "w") as file:
        file.write(HEADER + "3000,1.0,1\n4000,2.0,1\n")
    result = command("plot", "a", "b", "--group", "seed")
    assert result.code == 2
    assert "--group seed: a, b: curves: one begins at step 3,000, another ends at 2,000" in result.err


def test_the_folder_of_a_logger_alone_is_drawn(command, make_run, tmp_path):
    make_run("a", 0, 1.0)
    (tmp_path / "a" / "config.json").unlink()
    assert command("plot", "a").code == 0
    assert (tmp_path / "a" / "curve.png").exists()


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_the_suffix_says_what_the_picture_is(command, make_run, tmp_path, suffix, begins):
    make_run("a", 0, 1.0)
    assert command("plot", "a", "--out", f"x{suffix}").out == f"x{suffix}\n"
    assert (tmp_path / f"x{suffix}").read_bytes().startswith(begins)


def test_another_suffix_is_refused_before_anything_is_read(command):
    result = command("plot", "nothing", "--out", "x.jpg")
    assert result.code == 2
    assert "--out: x.jpg given; want a name that ends in .png, .svg, .pdf or .html" in result.err


def test_a_page_has_the_picture_and_the_tables_in_it_and_loads_nothing(command, make_run, tmp_path):
    for seed in range(3):
        make_run(f"a{seed}", seed, 1.0)
        make_run(f"b{seed}", seed, 2.0, gamma="<0.9>")
    command("plot", "a0", "a1", "a2", "b0", "b1", "b2", "--group", "seed", "--out", "x.html")
    page = (tmp_path / "x.html").read_text()
    assert page.count("<svg") == 1 and "Probability of improvement" in page
    assert "<td>gamma 0.99</td><td>gamma &lt;0.9&gt;</td><td>0.00</td><td>0.00 to 0.00</td>" in page
    assert not re.search(r"<(script|link|img|iframe|image)|@import|url\((?!#)|src=|href=\"(?!#)", page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_a_folder_of_runs_stands_for_the_runs_in_it(command, make_run, tmp_path):
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    for seed, name in enumerate(("runs/a", "runs/b", "runs/deep/c")):
        make_run(name, seed, 1.0)
    make_run("runs/begun", 5, 1.0)
    (tmp_path / "runs/begun/progress.csv").write_text(HEADER + "500,0.5,\n")
    result = command("plot", "runs", "--group", "seed")
    assert "mean of 3 seeds" in result.out and "runs/begun has no finished episode: left out" in result.err
    (tmp_path / "empty").mkdir()
    result = command("plot", "empty")
    assert result.code == 2
    assert "run: empty given; want a run's folder with progress.csv, or a folder of such" in result.err


def test_improvement_is_over_the_environments_that_two_settings_have_in_common(command, make_run):
    for seed in range(3):
        make_run(f"a{seed}", seed, 1.0)
        make_run(f"b{seed}", seed, 2.0, gamma=0.9)
        make_run(f"c{seed}", seed, 7.0, env="Ant-v5")
        make_run(f"d{seed}", seed, 3.0, env="Ant-v5", gamma=0.9)
        make_run(f"e{seed}", seed, 3.0, env="Walker2d-v5", gamma=0.5)
    result = command("plot", ".", "--group", "seed")
    assert [line for line in result.out.splitlines() if "beats" in line] == [
        "gamma 0.99 beats gamma 0.9 with probability 0.50, 95% interval 0.50 to 0.50 (Hopper-v5 at 2,000 timesteps, "
        "Ant-v5 at 2,000 timesteps)"
    ]
