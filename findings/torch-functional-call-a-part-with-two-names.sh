#!/usr/bin/env bash
# torch 2.13.0: torch.func.functional_call leaves its tensors behind in a part of a module that has two names.
#
# A module may be reached by two names: a body that is an attribute of its own and the first part of a Sequential, or a last layer
# that is also called `last`. With tie_weights=True, the default, tensors given for named_parameters() are put into that part once for
# each name, and taken out once too few: afterwards the part computes with the tensors of the call, and its own parameters are
# nowhere. An optimizer that holds these trains nothing from then on, and nothing is said. Parameters that two parts share are put
# back, as documented; so is everything with tie_weights=False.
# Usage: findings/torch-functional-call-a-part-with-two-names.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 3)
        self.whole = nn.Sequential(self.body, nn.Linear(3, 1))

    def forward(self, x):
        return self.whole(x)


def left_behind(tie_weights):
    module = Shared()
    own = dict(module.named_parameters())
    values = {name: torch.zeros_like(parameter) for name, parameter in own.items()}
    torch.func.functional_call(module, values, (torch.ones(1, 2),), tie_weights=tie_weights)
    now = dict(module.named_parameters())
    return [name for name in own if now.get(name) is not own[name]]


print("torch", torch.__version__)
print("given names of named_parameters():", sorted(dict(Shared().named_parameters())))
print("not put back, tie_weights=True: ", left_behind(True))
print("not put back, tie_weights=False:", left_behind(False))
assert left_behind(True) == ["body.weight", "body.bias"]
assert left_behind(False) == []
PYTHON
# Seen:
#   torch 2.13.0+cpu
#   given names of named_parameters(): ['body.bias', 'body.weight', 'whole.1.bias', 'whole.1.weight']
#   not put back, tie_weights=True:  ['body.weight', 'body.bias']
#   not put back, tie_weights=False: []
