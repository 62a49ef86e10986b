"""What the groups of this folder share: servers pinned to the first core, loads to the second, results as JSON lines."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "build/bench/servers"


def cores():
    """The server's core and the load's, as sets; the same one if there is no second."""
    all_cores = sorted(os.sched_getaffinity(0))
    return {all_cores[0]}, {all_cores[1 % len(all_cores)]}


def pinned(command, core, **options):
    """Starts a program on one core, ahead of everything else there if we may."""

    def prepare():
        os.sched_setaffinity(0, core)
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except PermissionError:
            pass

    return subprocess.Popen(
        [str(part) for part in command], preexec_fn=prepare, stdout=subprocess.PIPE, text=True, **options
    )


@contextmanager
def server(command, read_port=lambda line: int(line)):
    """A running server: yields its process and port."""
    process = pinned(command, cores()[0])
    try:
        line = process.stdout.readline()
        if not line:
            sys.exit(f"{command[0]} did not start")
        yield process, read_port(line)
    finally:
        process.kill()
        process.wait()


def rotated(variants, round_number):
    """Every round starts with another variant, so that none always runs first."""
    start = round_number % len(variants)
    return variants[start:] + variants[:start]


def peers(program):
    """The variants that BENCH_PEER adds (prefixes, separated by colons): names, and the program built with each."""
    names = [Path(prefix).name for prefix in os.environ.get("BENCH_PEER", "").split(":") if prefix]
    return [(f"peer:{name}", PROGRAMS / f"{program}@{name}") for name in names]


def emit(work, variant, value, unit, **more):
    """One result line."""
    line = {"work": work, "variant": variant, "value": value, "unit": unit, **more}
    print(json.dumps(line), flush=True)
