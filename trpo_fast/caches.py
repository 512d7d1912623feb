"""The caches of this machine's first processor, as Linux tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def caches() -> list[dict[str, Any]]:
    """Level, type, bytes of an instance and ``shared_by``, the processors that share it; empty where none is told."""
    found = []
    for folder in sorted(CACHES.glob("index*")):
        try:
            level, kind, size, shared = (
                (folder / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size", "shared_cpu_list")
            )
            found.append({"level": int(level), "type": kind, "bytes": _bytes(size), "shared_by": shared})
        except (OSError, ValueError):  # virtual machines leave some of it out
            continue
    return found


def data_cache_bytes(level: int) -> int:
    """Bytes of an instance of this level's data cache; 0 where the system does not tell."""
    return next((c["bytes"] for c in caches() if c["level"] == level and c["type"] in ("Data", "Unified")), 0)


def _bytes(size: str) -> int:
    """As in "1024K"."""
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1:], 1)
    return int(size.rstrip("KMG")) * unit
