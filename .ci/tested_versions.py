"""A line of JSON: the versions that are installed here, and what the tests found with them, from their JUnit file.

python .ci/tested_versions.py oldest|newest junit.xml
"""

import json
import platform
import sys
from importlib.metadata import distributions, version
from xml.etree import ElementTree

PACKAGES = (
    *("numpy", "torch", "gymnasium", "safetensors", "cloudpickle", "tqdm"),
    *("mujoco", "stable_baselines3", "sb3_contrib", "onnx", "optuna"),
)


def installed() -> dict[str, str]:
    """By package, of those that there are."""
    return {name: version(name) for name in PACKAGES if any(distributions(name=name))}


def main(which: str, junit: str) -> None:
    """Print it."""
    suite = next(ElementTree.parse(junit).getroot().iter("testsuite")).attrib
    counts = {name: int(suite[name]) for name in ("tests", "failures", "errors", "skipped")}
    print(json.dumps({"which": which, "python": platform.python_version(), "versions": installed(), **counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
