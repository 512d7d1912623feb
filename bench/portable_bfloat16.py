"""Imported by a training (``trpo-fast train --import bench.portable_bfloat16``): bf16 products in plain C.

On any CPU, then, their returns can be studied; how fast they are cannot.
"""

from trpo_fast._core.library import choose_bfloat16

choose_bfloat16("portable")
