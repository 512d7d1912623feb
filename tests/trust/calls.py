"""Random calls of every public function: no crash, no hang, no changed input, right answers or named errors.

``python -m tests.trust.calls --calls 100000`` makes them in child processes, so that a crash or a hang costs one call
and is told with what was called; call number i of a seed is the same whatever comes before it, ``--only i`` makes it
alone. What counts as a fault is said at `judge`.
"""

import argparse
import collections
import dataclasses
import faulthandler
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch

from tests.trust import hostile

ROOT = Path(__file__).resolve().parent.parent.parent
BATCH = 20_000
"""Calls of one child."""
LIMIT = 60
"""Seconds of one call: the slowest take a tenth of one on a machine that is not busy."""
MEMORY = 12 * 2**30
"""Bytes of address space of a child: a call that asks for more gets a MemoryError, and not the machine's last page."""
NAMED = (TypeError, ValueError, OverflowError, FloatingPointError)
"""Errors that a caller is told to expect."""
HALF_MADE = re.compile("by (__new__|a subclass)$")


def make_call(seed, index):
    """(target's name, call, what was done to each of its arguments)."""
    from tests.trust.catalogue import TARGETS

    rng = np.random.default_rng([seed, index])
    weights = np.array([target.weight for target in TARGETS.values()])
    name = str(rng.choice(list(TARGETS), p=weights / weights.sum()))
    call, done = TARGETS[name].make(rng), {}
    for _ in range(rng.choice(4, p=(0.15, 0.6, 0.2, 0.05))):
        if rng.random() < 0.1:
            first, second = hostile.share(rng, call.arguments) or ("", "")
            if first:
                done |= {first: f"shares memory with {second}", second: f"shares memory with {first}"}
            continue
        argument = str(rng.choice(list(call.arguments)))
        if argument in call.kept or argument in done:
            continue
        value = call.arguments[argument]
        if argument == "self":  # whose method it is, so that only an object of that class makes sense
            done[argument], call.arguments[argument] = hostile.instance(rng, value)
        else:
            done[argument], call.arguments[argument] = hostile.spoil(rng, value, argument in call.dear)
    return name, call, done


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


def names_an_argument(error, names):
    """Whether the message has one of the names as a word of its own."""
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error)) for name in names)


def classes_within(value):
    """Names of the classes of an argument that was made by `__new__`, and of its items."""
    several = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return {kind.__name__ for one in (value, *several) for kind in type(one).__mro__[:-1]}


def is_beyond_memory(value):
    """Whether it is a view that says to be as large, or a number that may be a size."""
    size = value.size if isinstance(value, np.ndarray) else value
    return isinstance(size, int | float | np.number) and size > 2**30


def is_the_callers_own(error, call, done):
    """Whether an argument itself raised it: such an error travels to the caller as it is."""
    last = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1].f_code
    in_a_callback = "catalogue" in Path(last.co_filename).parts and last is not getattr(call.function, "__code__", None)
    return (
        in_a_callback
        or any(text in str(error) for text in ("of the caller's own", "Refusing() takes no arguments"))
        or (isinstance(error, RecursionError) and any("recursive" in what for what in done.values()))
    )


def fault_of_error(error, call, done):
    """(kind, details) where `judge` counts what the call raised as a fault, else None."""
    half_made = [call.arguments[name] for name, what in done.items() if HALF_MADE.search(what)]
    classes = {name for value in half_made for name in classes_within(value)}
    if is_the_callers_own(error, call, done):
        return None
    if isinstance(error, AttributeError) and names_an_argument(error, classes):
        return None
    if isinstance(error, MemoryError) and any(map(is_beyond_memory, call.arguments.values())):
        return None
    if isinstance(error, call.raises):
        named = any(isinstance(value, str) and value[:20] in str(error) for value in call.arguments.values())
        kind = None if named else "error that names no file"
    elif not isinstance(error, NAMED):
        kind = "error of another kind"
    else:
        named = names_an_argument(error, {*call.arguments, *call.aliases, *classes})
        kind = None if named else "error that names no argument"
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno} {last.name}"
    return kind and (kind, f"{type(error).__name__}: {str(error)[:300]} ({where})")


def judge(call, done):
    """Make the call; (kind, details) of the fault, or None, and whether it was refused. done: to which argument what.

    Faults are:

    - an error that is none of `NAMED`, or whose message has no argument's name in it, as a word. Besides these names
      those of `call.aliases` count: what the arguments' own items or rows are called. An error of a kind of
      `call.raises`, OSError where an argument is a path, has to have that path in it;
    - a warning, of any kind but `call.warns`;
    - an input with other bytes, shape, strides or flags than before, unless the documentation of what is called says
      that it is written; so, too, where an error was raised;
    - an answer that the target's own check refuses.

    Not a fault are errors that an argument itself raises, as a caller's callback may, or a list that holds itself;
    an AttributeError or another error that names the class of an object that is half-made, by `__new__` or a subclass
    that forgets to call `__init__`; and a MemoryError where a number, or the size of a view, is beyond any memory.
    """
    arguments = dict(call.arguments)
    kept = {name: bytes_of(value) for name, value in arguments.items() if name not in call.written}
    refused, answer, fault = None, None, None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            answer = call.function(**arguments)
        except Exception as error:
            refused = error
    if refused is not None:
        fault = fault_of_error(refused, call, done)
    for name, before in kept.items():
        if fault is None and bytes_of(arguments[name]) != before:
            fault = "changed input", name
    for one in warned:
        if fault is None and not issubclass(one.category, call.warns):
            place = f"{Path(one.filename).name}:{one.lineno}"
            fault = "warning", f"{one.category.__name__}: {str(one.message)[:200]} ({place})"
    if fault is None and refused is None and call.check is not None:
        wrong = call.check(answer, **arguments)
        fault = ("wrong answer", str(wrong)[:300]) if wrong else None
    return fault, refused is not None


def child(seed, indices, log):
    """Make calls; every one is written down before it is made, its outcome after it. Ends at a call that hangs."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    torch.set_num_threads(1)
    with open(log, "ab", buffering=0) as out:
        for index in indices:
            try:
                name, call, done = make_call(seed, index)
            except Exception as error:
                raise RuntimeError(f"call {index} cannot be made") from error
            out.write(json.dumps({"call": index, "target": name, "done": done}).encode() + b"\n")
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            fault, refused = judge(call, done)
            signal.setitimer(signal.ITIMER_REAL, 0)
            out.write(json.dumps({"refused": refused, "fault": fault}).encode() + b"\n")


def run(seed, first, count, folder, module="tests.trust.calls"):
    """All calls, by children; yields (call as written down, outcome) of each, of one that its child died at, too."""
    begin, end, part = first, first + count, 0
    while begin < end:
        log, upto = Path(folder, f"{part}.jsonl"), min(end, begin + BATCH)
        command = [sys.executable, "-m", module, "--child", str(log), "--seed", str(seed), "--first", str(begin)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "--calls", str(upto - begin)], cwd=folder, env=environment, capture_output=True, text=True,
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


def digest():
    """Of the code that calls and is called: what was counted with other code does not count."""
    folders = ("csrc/include", "csrc/kernels", "csrc/isa", "trpo_fast", "tests/trust/catalogue")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    files = [path for path in found if path.suffix in {".c", ".h", ".py", ".pyx", ".pxd"}]
    files += [*sorted((ROOT / "csrc").glob("*.c")), Path(__file__), Path(hostile.__file__)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def counted(out, seed, first):
    """The counts in `out` of the same calls with the same code, else new ones."""
    own = {"seed": seed, "first": first, "code": digest()}
    if out is not None and out.exists():
        before = json.loads(out.read_text(encoding="utf-8"))
        if own.items() <= before.items():
            return before
    return {**own, "calls": 0, "refused": 0, "seconds": 0.0, "faults": [], "calls_of_each": {}}


def count(record, wanted, out):
    """Make calls until there are as many as `wanted`; the record is written after each batch, and gone on from."""
    from bench import machine

    while record["calls"] < wanted:
        if digest() != record["code"]:
            raise RuntimeError("the code was changed meanwhile; want the calls anew")
        start, begin = time.monotonic(), record["first"] + record["calls"]
        with tempfile.TemporaryDirectory() as folder:
            for call, outcome in run(record["seed"], begin, min(BATCH, wanted - record["calls"]), folder):
                target = call["target"]
                record["calls"] += 1
                record["refused"] += outcome["refused"]
                record["calls_of_each"][target] = record["calls_of_each"].get(target, 0) + 1
                if outcome["fault"]:
                    record["faults"].append({**call, "fault": outcome["fault"]})
        record["seconds"] = round(record["seconds"] + time.monotonic() - start, 1)
        if out is not None:
            record["calls_of_each"] = dict(sorted(record["calls_of_each"].items()))
            given = {"command": f"python -m tests.trust.calls --calls {record['calls']} --seed {record['seed']}"}
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps({**given, "machine": machine.describe(), **record}, indent=2) + "\n", "utf-8")


def show(faults, most):
    """Print at most so many of each kind and place."""
    kinds = collections.defaultdict(list)
    for found in faults:
        kind, details = found["fault"]
        kinds[found["target"], kind, re.sub(r"\d+", "#", details)[:150]].append(found)
    for (target, kind, _), several in sorted(kinds.items()):
        print(f"{kind}: {target}, {len(several)} times")
        for found in several[:most]:
            done = "; ".join(f"{name}: {what}" for name, what in found["done"].items())
            print(f"    call {found['call']}, {done}\n        {found['fault'][1]}")


def main(arguments=None):
    """Of the command line; the exit code is 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--only", type=int, help="make this call alone, in this process, and show it")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="JSON of counts; with the same code a run goes on from it")
    parser.add_argument("--show", type=int, default=3, help="faults of one kind and place that are printed")
    given = parser.parse_args(arguments)
    if given.calls < 1 or given.first < 0 or (given.only or 0) < 0:
        parser.error(f"--calls {given.calls} --first {given.first} --only {given.only} given; want numbers of calls")
    if given.only is not None:
        name, call, done = make_call(given.seed, given.only)
        print(name, done, {key: repr(value)[:200] for key, value in call.arguments.items()}, sep="\n")
        print(judge(call, done))
        print(call.function(**make_call(given.seed, given.only)[1].arguments))
        return 0
    if given.child:
        child(given.seed, range(given.first, given.first + given.calls), given.child)
        return 0
    record = counted(given.out, given.seed, given.first)
    count(record, given.calls, given.out)
    show(record["faults"], given.show)
    print(
        f"{record['calls']:,} calls of {len(record['calls_of_each'])} names in {record['seconds']:.0f} s: "
        f"{record['refused']:,} refused, {len(record['faults'])} faults"
    )
    return int(bool(record["faults"]))


if __name__ == "__main__":
    sys.exit(main())
