"""Runs whose products this machine may not have."""

import sys

from trpo_fast._core import library

SMALL = ("--num-envs", "2", "--steps-per-env", "16", "--warm-up-steps", "2", "--eval-episodes", "0")


def test_a_run_with_bf16_products_goes_on_where_an_import_makes_them_and_else_says_how_it_can(command, tmp_path):
    (tmp_path / "makes_products.py").write_text(
        "from trpo_fast._core.library import choose_bfloat16\nchoose_bfloat16('portable')\n"
    )
    imported = ("--import", "makes_products")
    try:
        begun = command(
            *("train", "CartPole-v1", "--timesteps", "32", "--preset", "none", "--out", "run", *SMALL, *imported),
            *("--critic-precision", "bfloat16", "--fisher-precision", "bfloat16"),
        )
        assert begun.code == 0, begun.err
        library.choose_bfloat16(None)
        if library.bfloat16_products() is None:
            refused = command("train", "--resume", "run", "--timesteps", "64")
            assert refused.code != 0 and "damaged" not in refused.err and "best.trpo" not in refused.err
            assert "fisher_precision: 'bfloat16' given, but " in refused.err
            assert "TRPO.load('run', fisher_precision='float32')" in refused.err
        sys.modules.pop("makes_products")
        resumed = command("train", "--resume", "run", "--timesteps", "64", *imported)
        assert resumed.code == 0, resumed.err
        assert library.bfloat16_products() == "portable"
    finally:
        library.choose_bfloat16(None)
        sys.modules.pop("makes_products", None)
