#!/usr/bin/env bash
# quoridor-env: through its Gymnasium step no pawn can ever move. The four move actions are decoded to tuples of four
# items where the game's legal moves have three, so that each is punished as invalid: only walls can be built, and no
# game can be won. Samples of its own action space are refused, too, being NumPy's integers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary gymnasium==1.4.0 numpy==2.3.5
"$work/venv/bin/pip" install --quiet --no-deps quoridor-env==0.2.6 # without its web interface
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

from quoridor_sim.quoridor_env import QuoridorEnv

print("quoridor-env", version("quoridor-env"), "gymnasium", version("gymnasium"))
env = QuoridorEnv()
env.reset()
try:
    env.step(env.action_space.sample())
except TypeError as error:
    print("step(action_space.sample()):", error)
else:
    raise SystemExit("samples are taken now")
moves = [move for move in env.game.legal_moves() if move[0] == "move"]
print("legal moves of the first pawn:", moves)
moved = []
for action in range(int(env.action_space.n)):
    env.reset()
    before = list(env.game.positions)
    _, reward, _, _, info = env.step(action)
    if action < 4:
        print(f"action {action}: reward {reward}, {info}")
    if list(env.game.positions) != before:
        moved.append(action)
print("of", env.action_space.n, "actions", len(moved), "move a pawn")
assert moves and not moved, "pawns move now"
PYTHON
