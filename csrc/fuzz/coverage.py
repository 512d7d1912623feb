"""Says how many lines of some files were reached, of llvm-cov's summary on standard input; fails below so many percent.

Usage: llvm-cov export -summary-only ... | python3 coverage.py TARGET LEAST FILE...
"""

import json
import sys

target, least, *names = sys.argv[1:]
lines = {"count": 0, "covered": 0}
for file in json.load(sys.stdin)["data"][0]["files"]:
    if any(file["filename"].endswith("/" + name) for name in names):
        for key in lines:
            lines[key] += file["summary"]["lines"][key]
percent = 100 * lines["covered"] / max(lines["count"], 1)
print(f"{target}: {lines['covered']} of {lines['count']} lines reached by the corpus, {percent:.1f}%; want {least}%")
sys.exit(percent < float(least))
