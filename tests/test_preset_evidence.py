"""What trpo_fast/presets.toml says its presets stand on is what bench/results/learning says: every figure of it."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

pytest.importorskip("fcntl", reason="the study locks its folder with POSIX locks")

from bench.learning_report import number
from bench.study import RESULTS, Study, seeds_of
from trpo_fast.algorithm import presets


class Claim(NamedTuple):
    """Words of an evidence, with the {mean}, {worst}, {best} and {each} of an arm's scores on some seeds."""

    task: str
    study: str
    arm: str
    seeds: str
    words: str


CLAIMS = (
    Claim("Pendulum-v1", "last", "std0", "0-2", "seeds 0 to 2 (commit 0ac681c, critic_gae_lambda .9): {each}, where"),
    Claim("Pendulum-v1", "last", "default", "0-2", "where the defaults leave {each};"),
    Claim("Pendulum-v1", "final_control", "frozen", "100-109", "seeds 100 to 109: {mean}, the worst {worst}"),
    Claim("MountainCarContinuous-v0", "last", "std0-gamma.999-lambda.98", "0-2", "seeds 0 to 2: {each}; the defaults"),
    Claim("MountainCarContinuous-v0", "evidence", "default", "0-4", "find the hill: {best} on five seeds of five"),
    Claim(
        "MountainCarContinuous-v0", "final_control", "frozen", "100-109", "seeds 100 to 109: {mean}, the worst {worst}"
    ),
    Claim("LunarLander-v3", "landing", "preset", "0-3", "seeds 0 to 3: {each}, where"),
    Claim("LunarLander-v3", "lander", "default", "0-2", "where the defaults leave {each} on seeds 0 to 2,"),
    Claim("LunarLander-v3", "last", "gamma.999-lambda.98", "0-2", "these with the max_kl of the defaults {each};"),
    Claim("LunarLander-v3", "final_control", "frozen", "100-109", "seeds 100 to 109: {mean}, the worst {worst}"),
    Claim("Hopper-v5", "hopper", "gamma.995", "0-9", "seeds 0 to 9: {mean}, the worst {worst}, and"),
    Claim("Hopper-v5", "hopper", "gamma.995", "0-4", "seeds 0 to 4: {mean}, where"),
    Claim("Hopper-v5", "final_hopper", "frozen", "100-109", "seeds 100 to 109: {mean}, the worst {worst}"),
    Claim("Hopper-v5", "relative", "default", "0-4", "where the defaults leave {mean}, the worst {worst},"),
    Claim("Swimmer-v5", "swimmer", "gamma.9995-lambda.99", "0-9", "seeds 0 to 9: {mean}, the worst {worst};"),
    Claim("Swimmer-v5", "final_swimmer", "frozen", "100-109", "seeds 100 to 109: {mean}, the worst {worst};"),
    Claim("Swimmer-v5", "revisited", "preset", "0-4", "lambdas of .98, had {each} on seeds 0 to 4 and"),
    Claim("Swimmer-v5", "final", "frozen", "100-109", "{mean}, the worst {worst}, on seeds 100 to 109;"),
    Claim(
        "Swimmer-v5",
        "last",
        "gamma.9999-lambda.98",
        "0",
        "on seed 0 with that gamma the default log_std_init had {each},",
    ),
    Claim("Swimmer-v5", "last", "std0-gamma.9999", "0", "the default gae_lambda {each};"),
    Claim("Swimmer-v5", "evidence", "default", "0", "and all defaults of commit 97f1b60 together {each}"),
    Claim("InvertedDoublePendulum-v5", "revisited", "raw", "0-4", "seeds 0 to 4: {worst} to {best},"),
    Claim("InvertedDoublePendulum-v5", "revisited", "default", "0-4", "the defaults leave {mean}, the worst {worst},"),
    Claim("InvertedDoublePendulum-v5", "revisited", "preset", "0-4", "of 100 {mean}, the worst {worst}."),
    Claim(
        "InvertedDoublePendulum-v5",
        "final_presets",
        "frozen",
        "100-109",
        "seeds 100 to 109: {mean}, the worst {worst}.",
    ),
    Claim("HalfCheetah-v5", "revisited", "raw", "0-4", "({mean} of "),
    Claim("HalfCheetah-v5", "cheetah", "default", "0-4", " of {mean})"),
)
OF_ANOTHER = {"HalfCheetah-v5": "InvertedDoublePendulum-v5"}  # whose evidence speaks of it
# Figures that are no scores.
PLAIN = re.compile(
    r"[\d,]+ timesteps|\d+ episodes|seeds? [\d]+( to \d+)?|commit [0-9a-f]{7}|exp\(-1\)|critic_gae_lambda \.9|"
    r"observation_clip of 100|gamma of \.9999|lambdas of \.98|\w+-v\d"
)


def rows_of(claim: Claim) -> list[dict[str, str]]:
    """Of the longest runs."""
    rows = [row for row in Study(RESULTS / claim.study).runs() if (row["arm"], row["task"]) == (claim.arm, claim.task)]
    longest = max((row["timesteps"] for row in rows), key=int)
    return [row for row in rows if row["timesteps"] == longest and int(row["seed"]) in seeds_of(claim.seeds)]


def words_of(claim: Claim) -> str:
    # Of a hill that is not found what exploring costs is left, 1e-4: 0.
    found = {int(row["seed"]): round(float(row["mean"]), 3) or 0.0 for row in rows_of(claim)}
    seeds = seeds_of(claim.seeds)
    scores = [found[seed] for seed in seeds]
    each = [number(score) for score in scores]
    text = ", ".join(each[:-1]) + (" and " if len(each) > 1 else "") + each[-1]
    mean = sum(scores) / len(scores)
    return claim.words.format(mean=number(mean), worst=number(min(scores)), best=number(max(scores)), each=text)


def evidence_of(claim: Claim) -> str:
    return presets.all_presets()[OF_ANOTHER.get(claim.task, claim.task)].evidence


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.task}-{claim.study}-{claim.arm}")
def test_figures_of_an_evidence_are_those_of_the_rows(claim):
    assert words_of(claim) in evidence_of(claim)
    row = rows_of(claim)[0]
    assert evidence_of(claim).startswith(f"{int(row['timesteps']):,} timesteps, {row['episodes']} episodes, ")


@pytest.mark.parametrize("name", presets.all_presets())
def test_every_figure_of_an_evidence_has_its_rows(name):
    evidence = presets.all_presets()[name].evidence
    for claim in CLAIMS:
        if OF_ANOTHER.get(claim.task, claim.task) == name:
            before, found, after = evidence.partition(words_of(claim))
            evidence = before + re.sub(r"\d", "", found) + after
    assert re.findall(r"\S*\d\S*", PLAIN.sub("", evidence)) == []
