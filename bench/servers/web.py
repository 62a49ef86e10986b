#!/usr/bin/env python3
"""One round of the HTTP servers under wrk: keep-alive connections that ask for the same short answer.

  web.py CONNECTIONS ROUND

Ours is c_examples/example_httpsvr.c as it stands; the peers are the same by tokio (with httparse) and by hyper. Prints
how many requests each answered in a second of its CPU time.
"""

import re
import shutil
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from common import PROGRAMS, cores, emit, pinned, rotated, server  # noqa: E402


def cpu_time(pid):
    """CPU time of all threads, in nanoseconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def measure(command, connections):
    """Requests in a second of the server's CPU time."""
    with server(command, read_port=lambda line: int(line.split(":")[-1])) as (process, port):
        before = cpu_time(process.pid)
        wrk = ["wrk", "--threads", 1, "--connections", connections, "--duration", "1s", f"http://127.0.0.1:{port}/"]
        with pinned(wrk, cores()[1]) as load:
            output = load.communicate(timeout=60)[0]
        cpu = cpu_time(process.pid) - before
    requests = re.search(r"(\d+) requests in", output)
    if load.returncode != 0 or not requests or re.search(r"Socket errors|Non-2xx", output):
        sys.exit(f"the load on {command[0]} went wrong:\n{output}")
    return int(requests[1]) / cpu * 1e9


def main():
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: scripts/install-deps.sh bench brings it")
    connections, round_number = int(sys.argv[1]), int(sys.argv[2])
    variants = [
        ("ours", [PROGRAMS / "http_co", "127.0.0.1", 0]),
        ("peer:tokio", [PROGRAMS / "http_tokio"]),
        ("peer:hyper", [PROGRAMS / "http_hyper"]),
    ]
    for variant, command in rotated(variants, round_number):
        value = measure(command, connections)
        emit("http", variant, value, "requests/CPU s", x=connections, better="higher")


if __name__ == "__main__":
    main()
