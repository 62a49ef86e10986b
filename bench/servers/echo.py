#!/usr/bin/env python3
"""One round of the echo servers at a number of connections.

  echo.py CONNECTIONS ROUND [SLICES]

All servers run on one core and hold their connections; the load, on the other core, goes to one after the other in
slices of a fraction of a second, SLICES times around. So whatever disturbs the machine disturbs all of them. Prints for
each style (written with co_poll, and as if read and write blocked) the server's CPU time and its system calls per
request.
"""

import json
import subprocess
import sys
from contextlib import ExitStack

sys.dont_write_bytecode = True
from common import PROGRAMS, cores, emit, peers, pinned, rotated, server  # noqa: E402

STYLES = ("poll", "plain")


class Load:
    """A load process and what it has measured."""

    def __init__(self, stack, command, connections):
        process, port = stack.enter_context(server(command))
        self.server_pid = process.pid
        load = [PROGRAMS / "load", port, process.pid, connections]
        self.process = stack.enter_context(pinned(load, cores()[1], stdin=subprocess.PIPE))
        stack.callback(self.process.kill)
        self.sums = {}

    def slice(self, kind, ms, record=True):
        """One slice of load."""
        self.process.stdin.write(f"{kind} {ms}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the load failed: {self.process.args}")
        for key, value in json.loads(line).items() if record else ():
            self.sums[kind, key] = self.sums.get((kind, key), 0) + value

    def per_request(self, kind, key):
        """What one request took; None if it could not be measured."""
        requests = self.sums.get((kind, "requests"))
        return self.sums[kind, key] / requests if requests else None


def main():
    connections, round_number = int(sys.argv[1]), int(sys.argv[2])
    slices = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    # Enough for ten requests on each connection; calls that come once in many waits show in a longer slice.
    ms, counted_ms = (100, 600) if connections <= 1000 else (300, 600)

    # Variant, the styles it stands for, command.
    variants = [
        ("limit", STYLES, [PROGRAMS / "echo_epoll"]),
        ("peer:epoll-recv", STYLES, [PROGRAMS / "echo_epoll", "recv"]),
        ("peer:tokio", STYLES, [PROGRAMS / "echo_tokio"]),
    ]
    for style in STYLES:
        variants.append(("ours", (style,), [PROGRAMS / "echo_co", style]))
        variants.extend((name, (style,), [program, style]) for name, program in peers("echo_co"))

    with ExitStack() as stack:
        loads = [Load(stack, command, connections) for _, _, command in variants]
        for load in loads:
            load.slice("cpu", ms, record=False)
        for turn in range(slices):
            for load in rotated(loads, round_number + turn):
                load.slice("cpu", ms)
        for load in rotated(loads, round_number):
            load.slice("calls", counted_ms)

    for (variant, styles, _), load in zip(variants, loads):
        cpu, calls = load.per_request("cpu", "cpu_ns"), load.per_request("calls", "calls")
        for style in styles:
            emit(f"echo-{style}-cpu", variant, cpu / 1000, "us", x=connections)
            if calls is not None:
                emit(f"echo-{style}-syscalls", variant, calls, "calls", x=connections)


if __name__ == "__main__":
    main()
