"""What the figures were measured on, and whether somebody else was using it."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""Those that decide how fast a convolution runs, x86 and Arm, as /proc/cpuinfo spells them."""
BUSY_CORES = 0.2
"""Cores kept busy by others from which on a run is marked as disturbed."""
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a run; what cannot be found out is None (Windows and macOS know less than Linux).

    Attributes
    ----------
    cpu
        Model name.
    instruction_sets
        Of :data:`INSTRUCTION_SETS`, those that the processor has; None if unknown.
    physical_cores, logical_cores, usable_cores
        In the machine; seen by the system; that this process may run on.
    ram_gib
        Main memory in GiB.
    os, python
        Names and versions.
    limited_to
        Instruction set that the environment keeps oneDNN (OpenVINO, PyTorch) to, as in an imitation of an older CPU.
    """

    cpu: str | None
    instruction_sets: tuple[str, ...] | None
    physical_cores: int | None
    logical_cores: int | None
    usable_cores: int | None
    ram_gib: float | None
    os: str
    python: str
    limited_to: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        sets = None if self.instruction_sets is None else list(self.instruction_sets)
        return asdict(self) | {"instruction_sets": sets}


def describe_machine(cpuinfo: Path = _PROC / "cpuinfo") -> Machine:
    """Describe this machine; never fails."""
    text = _read(cpuinfo)
    model, sets, physical = parse_cpuinfo(text) if text else (None, None, None)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        cpu=model or platform.processor() or None,
        instruction_sets=sets,
        physical_cores=physical,
        logical_cores=os.cpu_count(),
        usable_cores=usable,
        ram_gib=_ram_gib(),
        os=platform.platform(aliased=True),
        python=platform.python_version(),
        limited_to=onednn_limit(),
    )


def onednn_limit() -> str | None:
    """The instruction set that ``ONEDNN_MAX_CPU_ISA`` names, or None."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or None


def core_shares(count: int, cpus: Path = Path("/sys/devices/system/cpu")) -> list[set[int]] | None:
    """The logical processors that this process may use, dealt to ``count`` equal users by physical core.

    None where the system does not let a process choose (then it is left to the system), or where there are fewer
    physical cores than users.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores: dict[str, set[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = _read(cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list")
        cores.setdefault(siblings or str(cpu), set()).add(cpu)
    dealt = list(cores.values())
    return [set().union(*dealt[index::count]) for index in range(count)] if len(dealt) >= count else None


def parse_cpuinfo(text: str) -> tuple[str | None, tuple[str, ...] | None, int | None]:
    """(model name, instruction sets, physical cores) of Linux's /proc/cpuinfo; None for what it does not say."""
    processors = [
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in text.strip().split("\n\n")
    ]
    first = processors[0]
    flags = set((first.get("flags") or first.get("Features") or "").split())
    cores = {(each["physical id"], each["core id"]) for each in processors if {"physical id", "core id"} <= each.keys()}
    sets = tuple(name for name in INSTRUCTION_SETS if name in flags) if flags else None
    return first.get("model name"), sets, len(cores) or None


class LoadWatch:
    """Counts the processor time that processes other than ours used since it was made.

    Parameters
    ----------
    own
        Gives the process ids whose time is ours, besides this process.
    proc, clock
        For tests.

    Example
    -------
    >>> watch = LoadWatch(lambda: [])
    >>> watch.busy_cores() is None or watch.busy_cores() >= 0
    True
    """

    def __init__(
        self,
        own: Callable[[], Iterable[int]],
        proc: Path = _PROC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own, self._proc, self._clock = own, proc, clock
        self._started = clock()
        self._before = self._sample()

    def busy_cores(self) -> float | None:
        """Mean number of cores that others kept busy since the start; None where the system does not say."""
        after, seconds = self._sample(), self._clock() - self._started
        if self._before is None or after is None or seconds <= 0:
            return None
        ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        used = (after[0] - self._before[0]) / ticks
        mine = (sum(after[1].values()) - sum(self._before[1].values())) / ticks  # of a child that ended: in ours now
        return max(0.0, (used - mine) / seconds)

    def warning(self) -> str | None:
        """One line if others disturbed the measurement, else None."""
        busy = self.busy_cores()
        if busy is None or busy < BUSY_CORES:
            return None
        return f"other processes kept {busy:.1f} cores busy during the measurement: latencies are too high"

    def _sample(self) -> tuple[int, dict[int, int]] | None:
        """(ticks used on all cores, ticks by own process id); a process that is gone has none."""
        fields = _read(self._proc / "stat").partition("\n")[0].split()
        if len(fields) < 9 or fields[0] != "cpu":
            return None
        user, nice, system, _, _, irq, softirq, steal = (int(value) for value in fields[1:9])
        own = {}
        for pid in (os.getpid(), *self._own()):
            after_name = _read(self._proc / str(pid) / "stat").rpartition(")")[2].split()
            times = after_name[11:15] if pid == os.getpid() else after_name[11:13]  # with children that ended
            if times:
                own[pid] = sum(int(ticks) for ticks in times)
        return user + nice + system + irq + softirq + steal, own


def peak_rss_mib() -> float | None:
    """Largest resident memory of this very process so far, in MiB; None where the system does not say.

    Linux: VmHWM. ``ru_maxrss`` would do elsewhere but not here: it keeps the parent's peak across exec.
    """
    for line in _read(_PROC / "self" / "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    with contextlib.suppress(ImportError):
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if platform.system() == "Darwin" else peak / 1024
    return None


def _ram_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
