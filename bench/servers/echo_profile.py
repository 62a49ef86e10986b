#!/usr/bin/env python3
"""Where an echo server's time goes: perf samples it under load, and the samples are turned into time for each request.

  echo_profile.py CONNECTIONS SECONDS PROGRAM [ARGUMENT...]

PROGRAM is one of build/bench/servers: "echo_co poll", "echo_co plain", echo_epoll, echo_tokio. Needs perf.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.dont_write_bytecode = True
from common import PROGRAMS  # noqa: E402
from echo import Load  # noqa: E402

SHOWN = 25
SLICE_MS = 500


def main():
    connections, seconds = int(sys.argv[1]), int(sys.argv[2])
    program, *arguments = sys.argv[3:]
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        load = Load(stack, [PROGRAMS / program, *arguments], connections)
        load.slice("cpu", SLICE_MS, record=False)
        record = ["perf", "record", "-q", "--no-buildid", "--proc-map-timeout", "5000", "-F", "4000", "-e", "cpu-clock", "-o", data, "-p", str(load.server_pid)]
        record += ["sleep", str(seconds)]
        perf = subprocess.Popen(record)
        while perf.poll() is None:
            load.slice("cpu", SLICE_MS)
        script = ["perf", "script", "-i", data, "-F", "ip,sym,dso"]
        lines = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()

    samples = Counter()
    for line in lines:
        if found := re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line):
            place = "kernel" if "kernel" in found[2] else Path(found[2]).name
            samples[place, found[1].split("+0x")[0]] += 1
    if not samples:
        sys.exit("perf took no samples")
    cpu = load.per_request("cpu", "cpu_ns")
    unit = cpu / samples.total()
    print(f"{program} {' '.join(arguments)}, {connections} connections: {cpu:.0f} ns of CPU a request")
    for place, count in Counter({p: sum(n for (q, _), n in samples.items() if q == p) for p, _ in samples}).most_common():
        print(f"{count * unit:7.0f} ns  {place}")
    print("of that, outside the kernel:")
    outside = Counter({key: count for key, count in samples.items() if key[0] != "kernel"})
    for (place, symbol), count in outside.most_common(SHOWN):
        print(f"{count * unit:7.0f} ns  {symbol} ({place})")


if __name__ == "__main__":
    main()
