#!/usr/bin/env python3
"""One round of an idle loop: 100,000 coroutines sleep and nothing happens.

  idle.py ROUND [COROUTINES [SECONDS]]

Prints how often the process woke up and the CPU time it used, both for a second.
"""

import re
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
from common import PROGRAMS, emit, peers, rotated, server  # noqa: E402


def used(pid):
    """How often the process gave up its core, and its CPU time in nanoseconds."""
    status = Path(f"/proc/{pid}/status").read_text()
    switches = sum(int(count) for count in re.findall(r"ctxt_switches:\s*(\d+)", status))
    return switches, int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def main():
    arguments = [int(argument) for argument in sys.argv[1:]]
    round_number, count, seconds = arguments + [0, 100_000, 2][len(arguments) :]
    for variant, program in rotated([("ours", PROGRAMS / "idle_co"), *peers("idle_co")], round_number):
        with server([program, count]) as (process, _):
            time.sleep(0.3)
            before = used(process.pid)
            time.sleep(seconds)
            wakeups, cpu = (now - then for now, then in zip(used(process.pid), before))
        emit("idle-wakeups", variant, wakeups / seconds, "wake-ups/s", x=count)
        emit("idle-cpu", variant, cpu / 1e6 / seconds, "ms/s", x=count)


if __name__ == "__main__":
    main()
