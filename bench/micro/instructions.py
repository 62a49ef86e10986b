#!/usr/bin/env python3
"""Instructions of the hot paths, counted by callgrind. The tests bound them (tests/instructions.rs).

  instructions.py ROUND PROGRAM [VARIANT]

PROGRAM is tests/instructions/counted.c, built. Of a hook that is off: how many more than the call behind it.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def counted(program):
    """Instructions of one operation, by work: the slope between the two sizes that the program does of each."""
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        command = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", program]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"callgrind failed with {done.returncode}: {done.stderr}")
        for part in Path(folder).glob("counts.*"):
            text = part.read_text()
            name = re.search(r"^desc: Trigger: Client Request: (.*) (\d+)$", text, re.MULTILINE)
            if name:
                total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
                sizes.setdefault(name[1], []).append((int(name[2]), int(total[1])))
    return {work: (b - a) / (many - few) for work, ((few, a), (many, b)) in sizes.items()}


def emit(work, variant, count):
    """One result line."""
    line = {"work": f"instructions-{work}", "variant": variant, "value": round(count, 2), "unit": "instructions"}
    print(json.dumps(line), flush=True)


def main():
    program = sys.argv[2]
    variant = sys.argv[3] if len(sys.argv) > 3 else "ours"
    counts = counted(program)
    for work, count in sorted(counts.items()):
        kind, _, hook = work.partition(" ")
        if not hook:
            emit(work, variant, count)
        elif kind == "hooked":
            emit(f"hook-off-{hook}", variant, count - counts[f"plain {hook}"])


if __name__ == "__main__":
    main()
