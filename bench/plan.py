"""What `make bench` runs, and what is to be reached."""

from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent
BUILD = BENCH.parent / "build" / "bench"


ANY = -1  # a target's size: the only one that was measured


@dataclass(frozen=True)
class Group:
    """Commands that together do one interleaved round of some works; each gets the round's number.

    {round} stands for the number. peer: the command of the library that BENCH_PEER names; {peer} is its name, and
    BENCH_VARIANT in its environment what its lines shall say. A group without one finds BENCH_PEER in its commands'
    environment.
    """

    name: str
    commands: tuple
    rounds: int
    peer: tuple = ()


@dataclass(frozen=True)
class Target:
    """A number to reach.

    work: "*" in it stands for anything, and the worst of those counts. kind "ratio": ours divided by the reference's of
    the same round; "difference": ours less the reference's; "value": ours itself. reference: a variant; "BENCH_PEER":
    the library that was put beside ours. bound: at most that, or at least if `least`. x: the size, for works that have
    one.
    """

    work: str
    title: str
    bound: float
    kind: str = "ratio"
    reference: str = "limit"
    x: int = 0
    least: bool = False


MICRO = BUILD / "micro"
SCALE = BUILD / "scale"
SERVERS = BENCH / "servers"


def micro(name, rounds):
    """A program of bench/micro, built to the static and to the shared library."""
    return Group(
        name,
        tuple((MICRO / f"{name}-{linkage}", "{round}") for linkage in ("static", "shared")),
        rounds,
        peer=(MICRO / (name + "-{peer}"), "{round}"),
    )


def scale(name, *arguments, rounds=1, peer_arguments=None):
    """A program of bench/scale."""
    return Group(
        "-".join((name, *arguments)),
        ((SCALE / "ours" / name, *arguments),),
        rounds,
        peer=(SCALE / "peer-{peer}" / name, *(peer_arguments or arguments)),
    )


GROUPS = [
    micro("switch", 15),
    micro("hooks", 9),
    Group("growth", ((MICRO / "growth-static", "{round}"),), 3, peer=(MICRO / "growth-{peer}", "{round}")),
    Group("instructions", ((BENCH / "micro" / "instructions.py", "{round}", MICRO / "counted"),), 1),
    # A peer whose coroutines are large still gets through.
    scale("memory", "private", "1000000", peer_arguments=("private", "100000")),
    scale("memory", "copy", "1000000", peer_arguments=("copy", "100000")),
    scale("blocked", rounds=3),
    scale("timers", "copy", "100000", rounds=7),
    scale("timers", "copy", "1000000", rounds=7),
    scale("allocations"),
    scale("memory-back"),
    Group("idle", ((SERVERS / "idle.py", "{round}"),), 1),
    Group("http", ((SERVERS / "web.py", "50", "{round}"),), 7),
    *(Group(f"echo-{n}", ((SERVERS / "echo.py", str(n), "{round}"),), 7) for n in (50, 1000, 10000)),
]

TARGETS = [
    Target("switch-static", "resume + yield, static library", 1.35),
    Target("switch-shared", "resume + yield, shared library", 2.0),
    Target("create-static", "create + run + release", 1.5, reference="peer:corosensei"),
    Target("copy-switch-256-static", "copy-stack switch, 256 B live", 3.5),
    Target("copy-switch-32768-static", "copy-stack switch, 32 KiB live", 1.05),
    Target("read-ready-static", "hooked read, ready socket", 1.1),
    Target("hooks-off-shared", "hook that is off, shared library", 3.0, kind="difference"),
    Target("instructions-hook-off-*", "hook that is off, static library: instructions more", 15, kind="value"),
    *(
        Target(f"echo-{style}-syscalls", f"echo, {how}, {n} connections: system calls", 2.05, kind="value", x=n)
        for style, how in (("poll", "co_poll"), ("plain", "plain style"))
        for n in (50, 1000, 10000)
    ),
    *(
        Target(f"echo-{style}-cpu", f"echo, {how}, {n} connections: server CPU", 1.10 if n == 50 else 1.05, x=n)
        for style, how in (("poll", "co_poll"), ("plain", "plain style"))
        for n in (50, 1000, 10000)
    ),
    Target("http", "HTTP keep-alive, requests in a CPU second", 1.0, reference="peer:tokio", x=50, least=True),
    Target("http", "HTTP keep-alive, requests in a CPU second", 1.0, reference="peer:hyper", x=50, least=True),
    Target("memory-private", "live private-stack coroutine, resident bytes", 4400, kind="value", x=1000000),
    Target("memory-copy", "live copy-stack coroutine, 256 B of locals", 600, kind="value", x=1000000),
    Target("memory-blocked", "blocked in a hooked read on a copy stack", 600, kind="value", x=ANY),
    Target("timer-cpu-copy", "timer fire, 100,000 coroutines", 0.4, reference="BENCH_PEER", x=100000),
    Target("timer-cpu-copy", "timer fire, 1,000,000 coroutines", 0.4, reference="BENCH_PEER", x=1000000),
    Target("timer-late-mean-copy", "timers, 100,000 coroutines: mean lateness", 1.0, kind="value", x=100000),
    Target("timer-early-copy", "timers, 100,000 coroutines: early", 0, kind="value", x=100000),
    Target("timer-early-copy", "timers, 1,000,000 coroutines: early", 0, kind="value", x=1000000),
    Target("idle-wakeups", "idle loop, 100,000 sleeping coroutines: wake-ups", 0, kind="value", x=100000),
    Target("idle-cpu", "idle loop, 100,000 sleeping coroutines: CPU", 0.01, kind="value", x=100000),
    Target("allocations-*", "allocations on resume, yield, wait, wake, hooked calls", 0, kind="value"),
    Target("memory-back-*", "memory back after 100,000 private stacks ended", 90, kind="value", x=100000, least=True),
]
