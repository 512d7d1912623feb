"""Random calls of every public function: no crash, no hang, no changed input, right answers or named errors.

``python -m tests.trust.calls --calls 100000`` makes them in child processes, so that a crash or a hang costs one call
and is told with what was called; call number i of a seed is the same whatever comes before it, ``--only i`` makes it
alone. What counts as a fault is said at `judge`.
"""

import argparse
import collections
import dataclasses
import faulthandler
import json
import os
import re
import resource
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch

from tests.trust import hostile

ROOT = Path(__file__).resolve().parent.parent.parent
BATCH = 5_000
"""Calls of one child."""
LIMIT = 30
"""Seconds of one call: the slowest take half a second on a busy machine."""
MEMORY = 12 * 2**30
"""Bytes of address space of a child: a call that asks for more gets a MemoryError, and not the machine's last page."""
NAMED = (TypeError, ValueError, OverflowError, FloatingPointError)
"""Errors that a caller is told to expect (those of a file, OSError, where a path is an argument)."""


def make_call(seed, index):
    """(target's name, call, what was done to its arguments, names that were spoiled or made to share)."""
    from tests.trust.catalogue import TARGETS

    rng = np.random.default_rng([seed, index])
    weights = np.array([target.weight for target in TARGETS.values()])
    name = str(rng.choice(list(TARGETS), p=weights / weights.sum()))
    call = TARGETS[name].make(rng)
    done, spoiled = [], set()
    for _ in range(rng.choice(4, p=(0.15, 0.6, 0.2, 0.05))):
        if rng.random() < 0.1:
            both = hostile.share(rng, call.arguments)
            if both:
                done.append(f"{both[0]} and {both[1]} share memory")
                spoiled |= set(both)
            continue
        argument = str(rng.choice(list(call.arguments)))
        if argument in call.kept or argument in spoiled:
            continue
        what, call.arguments[argument] = hostile.spoil(rng, call.arguments[argument], argument in call.dear)
        done.append(f"{argument}: {what}")
        spoiled.add(argument)
    return name, call, done, spoiled


def bytes_of(value, depth=4):
    """What a call must not change of an argument, as something that can be compared."""
    if isinstance(value, np.ndarray):
        small = value.dtype != object and value.nbytes < 2**20
        return value.shape, value.strides, str(value.dtype), value.flags.writeable, value.tobytes() if small else None
    if isinstance(value, torch.Tensor):
        plain = value.layout == torch.strided and value.device.type == "cpu"
        content = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if plain else None
        return tuple(value.shape), str(value.dtype), value.requires_grad, content
    if isinstance(value, torch.nn.Module) and "_modules" in vars(value):
        return [bytes_of(parameter) for parameter in value.parameters()], value.training
    if depth and isinstance(value, tuple | list):
        return [bytes_of(item, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return [(str(key), bytes_of(item, depth - 1)) for key, item in value.items()]
    if depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        present = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        return [(name, bytes_of(getattr(value, name), depth - 1)) for name in present]
    return type(value).__name__


def names_an_argument(error, arguments, spoiled, half_made):
    """Whether the message has the name of an argument as a word of its own; of a half-made object its class will do."""
    text = str(error)
    if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in (*arguments, *half_made)):
        return True
    # Python itself names a function's own parameters so.
    return bool(spoiled) and "of the caller's own" in text


def judge(call, spoiled):
    """Make the call; (kind, details) of the fault, or None; and whether it was refused.

    A fault is an error of another kind than NAMED (and the call's own `raises`), one whose message names no argument, a
    warning, an input with other bytes than before, unless the call's documentation says that it is written, and an
    answer that the target's own check refuses.
    """
    arguments = dict(call.arguments)
    kept = {name: bytes_of(value) for name, value in arguments.items() if name not in call.written}
    half_made = {"Forgetful"}
    for name in spoiled & arguments.keys():
        value = arguments[name]
        for one in (value, *(value if isinstance(value, tuple | list) else ())):
            half_made |= {kind.__name__ for kind in type(one).__mro__[:-1]}
    refused, answer = None, None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            answer = call.function(**arguments)
        except Exception as error:
            refused = error
    if refused is not None:
        # What an argument itself raises travels to the caller; a list that holds itself is Python's own business.
        own = isinstance(refused, RecursionError) or any(
            text in str(refused) for text in ("of the caller's own", "Refusing() takes no arguments")
        )
        own |= "catalogue.py" in traceback.extract_tb(refused.__traceback__)[-1].filename
        incomplete = isinstance(refused, AttributeError) and any(name in str(refused) for name in half_made)
        if not own and not incomplete:
            last = traceback.extract_tb(refused.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno} {last.name}"
            said = f"{type(refused).__name__}: {str(refused)[:300]}"
            if isinstance(refused, call.raises):  # a file's, which is named
                return None, True
            if isinstance(refused, MemoryError) and any(
                isinstance(value, np.ndarray) and value.size > 2**30 for value in arguments.values()
            ):
                return None, True  # NumPy's, of a view that says to be larger than any memory
            if not isinstance(refused, NAMED):
                return ("error of another kind", f"{said} ({where})"), True
            if not names_an_argument(refused, arguments, spoiled, half_made | set(call.aliases)):
                return ("error that names no argument", f"{said} ({where})"), True
    for name, before in kept.items():
        if bytes_of(arguments[name]) != before:
            return ("changed input", name), refused is not None
    for one in warned:
        if not issubclass(one.category, (*call.warns, ResourceWarning)):
            place = f"{Path(one.filename).name}:{one.lineno}"
            return ("warning", f"{one.category.__name__}: {str(one.message)[:200]} ({place})"), refused is not None
    if refused is None and call.check is not None:
        wrong = call.check(answer, **arguments)
        if wrong:
            return ("wrong answer", str(wrong)[:300]), False
    return None, refused is not None


def child(seed, indices, log):
    """Make calls; every one is written down before it is made, its outcome after it. Ends at a call that hangs."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faulthandler.enable()
    torch.set_num_threads(1)
    with open(log, "ab", buffering=0) as out:
        for index in indices:
            try:
                name, call, done, spoiled = make_call(seed, index)
            except Exception as error:
                raise RuntimeError(f"call {index} cannot be made") from error
            out.write(json.dumps({"call": index, "target": name, "done": done}).encode() + b"\n")
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            fault, refused = judge(call, spoiled)
            faulthandler.cancel_dump_traceback_later()
            out.write(json.dumps({"refused": refused, "fault": fault}).encode() + b"\n")


def run(seed, first, count, folder, module="tests.trust.calls"):
    """All calls, by children; yields (call as written down, outcome) of each, of one that its child died at, too."""
    begin, end, part = first, first + count, 0
    while begin < end:
        log, upto = Path(folder, f"{part}.jsonl"), min(end, begin + BATCH)
        command = [sys.executable, "-m", module, "--child", str(log), "--seed", str(seed), "--first", str(begin)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "--calls", str(upto - begin)], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=LIMIT * 100, check=False, errors="replace",
        )  # fmt: skip
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        yield from zip(lines[::2], lines[1::2], strict=False)
        if done.returncode and len(lines) % 2:
            what = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
            yield lines[-1], {"refused": False, "fault": ["crash or hang", f"{what}: {done.stderr[-1500:]}"]}
        elif done.returncode:
            raise RuntimeError(f"the child that makes calls failed by itself:\n{done.stderr[-3000:]}")
        begin, part = begin + (len(lines) + 1) // 2, part + 1


def main(arguments=None):
    """Of the command line; the exit code is 1 where a fault was found."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--only", type=int, help="make this call alone, in this process, and show it")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="JSON of counts")
    parser.add_argument("--show", type=int, default=3, help="faults of one kind and place that are printed")
    given = parser.parse_args(arguments)
    if given.only is not None:
        name, call, done, spoiled = make_call(given.seed, given.only)
        print(name, done, {key: repr(value)[:200] for key, value in call.arguments.items()}, sep="\n")
        print(judge(call, spoiled))
        print(call.function(**make_call(given.seed, given.only)[1].arguments))
        return 0
    if given.child:
        child(given.seed, range(given.first, given.first + given.calls), given.child)
        return 0
    start, per_target, refused, faults = time.monotonic(), collections.Counter(), 0, collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for call, outcome in run(given.seed, given.first, given.calls, folder):
            per_target[call["target"]] += 1
            refused += outcome["refused"]
            if outcome["fault"]:
                kind, details = outcome["fault"]
                faults[call["target"], kind, re.sub(r"\d+", "#", details)[:150]].append((call, details))
    for (target, kind, _), found in sorted(faults.items(), key=lambda item: item[0][:2]):
        print(f"{kind}: {target}, {len(found)} times")
        for call, details in found[: given.show]:
            print(f"    call {call['call']}, {'; '.join(call['done'])}\n        {details}")
    total, seconds = sum(per_target.values()), time.monotonic() - start
    found = sum(map(len, faults.values()))
    print(f"{total:,} calls of {len(per_target)} names in {seconds:.0f} s: {refused:,} refused, {found} faults")
    if given.out:
        from bench import machine

        given.out.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "command": f"python -m tests.trust.calls --calls {given.calls} --seed {given.seed}",
            "machine": machine.describe(),
            "seed": given.seed,
            "calls": total,
            "refused": refused,
            "answered": total - refused,
            "faults": found,
            "seconds": round(seconds, 1),
            "calls_of_each": dict(sorted(per_target.items())),
        }
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
