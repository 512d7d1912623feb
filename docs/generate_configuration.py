"""Write configuration.md from the declarations in TRPOConfig; a test holds the two together.

Run from anywhere:  python docs/generate_configuration.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from trpo_fast.algorithm.config import TRPOConfig

PAGE = Path(__file__).with_name("configuration.md")

HEAD = """\
# Configuration

Every setting of the algorithm is a field of `TRPOConfig`. The same names serve everywhere:

```python
from trpo_fast import TRPO, TRPOConfig

TRPO("Hopper-v5", max_kl=0.01)  # one setting
TRPO("Hopper-v5", config=TRPOConfig(max_kl=0.01))  # or a whole configuration
```

```
trpo-fast train Hopper-v5 --max-kl 0.01
```

An id may have a [preset](learning.md#presets): a setting that is given wins, a whole configuration leaves it out.
What `trpo-fast tune` tries is declared with a setting, too ([tuning.md](tuning.md)).
A value that cannot work raises `ValueError` with the field, the value and what is wanted.
This page is made by `docs/generate_configuration.py` from the declarations in `trpo_fast/algorithm/config.py` and
`trpo_fast/solvers/settings.py`.
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for entry in dataclasses.fields(TRPOConfig):
        meta = entry.metadata
        parts.append(
            f"\n## `{entry.name}` = `{entry.default!r}`\n\n"
            f"{_sentence(meta['meaning'])} Accepts {meta['rule'].want}.\\\n"
            f"*Why {entry.default!r}:* {_sentence(meta['why'], capital=False)}"
            + (f"\\\n*Tuning tries* {meta['search'].described}.\n" if meta["search"] else "\n")
        )
    return "".join(parts)


def _sentence(text: str, *, capital: bool = True) -> str:
    first = text[0].upper() if capital and text.split()[0].islower() else text[0]
    return first + text[1:].rstrip(".") + "."


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
