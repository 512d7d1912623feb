"""``trpo-fast export``."""

from __future__ import annotations

import argparse
import sys

from trpo_fast.cli.errors import user_errors
from trpo_fast.cli.output import say
from trpo_fast.cli.run_folder import latest_of
from trpo_fast.onnx_export import export_onnx


def run(arguments: argparse.Namespace) -> int:
    """Write the policy for other runtimes; the file's name on stdout."""
    options = {"precision": arguments.precision, "opset": arguments.opset}
    with user_errors(RuntimeError):
        written = latest_of(arguments.run, lambda path: export_onnx(path, arguments.out, **options))
    say(str(written.path))
    if written.difference is None:
        say("trpo-fast export: not compared with the policy in onnxruntime", sys.stderr)
    elif arguments.precision == "float32":
        say(f"trpo-fast export: differs from the policy by at most {written.difference:.2g}", sys.stderr)
    return 0
