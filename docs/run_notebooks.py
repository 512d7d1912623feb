"""Run the notebooks of this folder and keep in them what their cells print; no Jupyter is needed.

Run from the repository:  python docs/run_notebooks.py
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))


def run(path: Path, change: Callable[[str], str] = str) -> list[str]:
    """What each cell of code prints; `change` may shorten a cell's source first."""
    names: dict[str, Any] = {"__name__": path.stem}
    printed = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(change("".join(cell["source"])), path.name, "exec"), names)
            printed.append(out.getvalue())
    return printed


def main() -> int:
    """Write the notebooks again."""
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            printed = run(path)
        notebook = json.loads(path.read_text(encoding="utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for number, (cell, text) in enumerate(zip(code, printed, strict=True), 1):
            stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
            cell.update(execution_count=number, outputs=[stream] if text else [])
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path, os.linesep, "\n".join(printed), sep="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
