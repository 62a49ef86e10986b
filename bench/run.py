#!/usr/bin/env python3
"""Runs the benchmarks in interleaved rounds; prints the table of what was to be reached; writes data, plots and a page.

Every group does one round at a time, all its variants one after the other, and prints JSON lines (README.md). A ratio
is taken within a round; the table shows the median of the rounds' ratios, the smallest and the largest.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

import plan  # noqa: E402
import report  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def machine():
    """What the numbers depend on."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    version = re.search(r'^version *= *"(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    return {
        "colib": version[1],
        "processor": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "date": time.strftime("%Y-%m-%d"),
    }


def offer_tracepoints():
    """System calls are counted by the kernel's tracepoints, whose files not every machine has in place."""
    tracing = Path("/sys/kernel/tracing")
    if not (tracing / "events").exists() and os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tracefs", "tracefs", tracing], stderr=subprocess.DEVNULL, check=False)
    if not os.access(tracing / "events/raw_syscalls/sys_enter/id", os.R_OK):
        print(f"bench: system calls are not counted: that takes {tracing} (tracefs) and root", file=sys.stderr)


def run_command(command, round_number, peer, is_peer):
    """One command of a group: the lines it printed, and whether it went well."""
    name = Path(peer).name if peer else ""
    filled = [str(part).format(round=round_number, peer=name) for part in command]
    environment = dict(os.environ)
    environment.pop("BENCH_PEER", None)
    if peer:
        environment["BENCH_PEER"] = str(peer)
    if is_peer:
        environment["BENCH_VARIANT"] = f"peer:{name}"
    try:
        done = subprocess.run(filled, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    except OSError as error:
        print(f"bench: {error}: was it built?", file=sys.stderr)
        return [], False
    if done.returncode != 0:
        print(f"bench: {' '.join(filled)} failed with {done.returncode}", file=sys.stderr)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return lines, done.returncode == 0


def run(groups, rounds, peer):
    """All rounds of the groups: the data, and whether all went well."""
    series, well = {}, True
    wanted = {group.name: rounds or group.rounds for group in groups}
    for number in range(max(wanted.values())):
        due = [group for group in groups if number < wanted[group.name]]
        took = []
        for group in due:
            start = time.monotonic()
            commands = [(command, None) for command in group.commands]
            if peer and group.peer:
                commands.append((group.peer, peer))
            elif peer:
                commands = [(command, peer) for command, _ in commands]
            turn = number % len(commands)
            for command, heeded in commands[turn:] + commands[:turn]:
                lines, fine = run_command(command, number, heeded, is_peer=command is group.peer)
                # A peer may fall short of what is asked of it.
                well &= fine or heeded is not None
                for line in lines:
                    key = (line["work"], line.get("x", 0), line["variant"])
                    one = series.setdefault(key, {"unit": line["unit"], "better": line.get("better"), "values": {}})
                    one["values"][number] = line["value"]
                    if line.get("note"):
                        one["note"] = line["note"]
            took.append(f"{group.name} {time.monotonic() - start:.0f} s")
        print(f"bench: round {number + 1} of {max(wanted.values())}: {', '.join(took)}", file=sys.stderr, flush=True)
    data = [
        {"work": work, "x": x, "variant": variant, **{k: v for k, v in one.items() if v is not None}}
        for (work, x, variant), one in sorted(series.items())
    ]
    for one in data:
        one["median"] = median(one["values"].values())
    return data, well


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="rounds of every group (otherwise as many as bench/plan.py says)")
    parser.add_argument("--groups", help="names, or beginnings of names, with commas between; --list shows them")
    parser.add_argument("--list", action="store_true", help="show the groups")
    parser.add_argument("--peer", default=os.environ.get("BENCH_PEER"), help="prefix of a library to put beside ours")
    parser.add_argument("--out", type=Path, default=plan.BUILD / "results", help="folder for data, plots and page")
    parser.add_argument("--data", type=Path, help="measure nothing: show this file again")
    parser.add_argument("--docs", action="store_true", help="also rewrite the generated part of docs/PERFORMANCE.md")
    arguments = parser.parse_args()

    groups = plan.GROUPS
    if arguments.list:
        for group in groups:
            print(f"{group.name:16} {group.rounds:3} rounds")
        return 0
    if arguments.groups:
        wanted = arguments.groups.split(",")
        groups = [group for group in groups if any(group.name.startswith(part) for part in wanted)]
        if not groups:
            sys.exit(f"no group starts with {arguments.groups}; --list shows them")

    if arguments.data:
        everything, well = json.loads(arguments.data.read_text()), True
    else:
        peer = Path(arguments.peer).resolve() if arguments.peer else None
        offer_tracepoints()
        data, well = run(groups, arguments.rounds, peer)
        everything = {"machine": machine(), "peer": peer.name if peer else None, "results": data}
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "data.json").write_text(json.dumps(everything, indent=1) + "\n")

    results = report.Results(everything)
    print(results.text())
    arguments.out.mkdir(parents=True, exist_ok=True)
    page = report.write_page(results, arguments.out)
    print(f"Data, plots and a page for the browser: {os.path.relpath(page.parent, Path.cwd())}/")
    if arguments.docs:
        report.write_docs(results, ROOT / "docs", arguments.out)
    if not well:
        print("bench: something failed, see above", file=sys.stderr)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
