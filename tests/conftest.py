"""One thread for other people's libraries: small problems gain nothing from more, and the cores may be shared."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

os.environ.setdefault("TRPO_FAST_NUM_THREADS", "2")  # but the compiled core's own threads are tested
