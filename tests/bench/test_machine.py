"""The machine is described as far as it can be, and who else used it is noticed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sccg_bench.machine import LoadWatch, core_shares, describe_machine, parse_cpuinfo, peak_rss_mib

XEON = """processor\t: {0}
model name\t: Intel(R) Xeon(R) Processor
physical id\t: 0
core id\t\t: {1}
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8
"""


def test_cpuinfo_of_two_cores_with_two_threads_each() -> None:
    text = "\n".join(XEON.format(index, index // 2) for index in range(4))
    sets = ("avx2", "avx512f", "avx512_vnni", "amx_int8")
    assert parse_cpuinfo(text) == ("Intel(R) Xeon(R) Processor", sets, 2)


def test_cpuinfo_of_an_arm_machine() -> None:
    assert parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd asimddp\n") == (None, ("asimd", "asimddp"), None)


def test_where_nothing_is_known_nothing_is_claimed(tmp_path: Path) -> None:
    found = describe_machine(tmp_path / "none")
    assert found.instruction_sets is None
    assert found.physical_cores is None
    json.dumps(found.to_dict(), allow_nan=False)
    assert LoadWatch(list, proc=tmp_path).busy_cores() is None
    assert LoadWatch(list, proc=tmp_path).warning() is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no processor affinity on this system")
def test_cores_are_dealt_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four logical processors on two cores, siblings 0,1 and 2,3."""
    for cpu in range(4):
        place = tmp_path / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text("0-1\n" if cpu < 2 else "2-3\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert core_shares(2, tmp_path) == [{0, 1}, {2, 3}]
    assert core_shares(1, tmp_path) == [{0, 1, 2, 3}]
    assert core_shares(3, tmp_path) is None, "more streams than cores: left to the system"
    assert core_shares(4, tmp_path / "unknown") == [{0}, {1}, {2}, {3}]


def test_this_machine_has_a_name_and_memory() -> None:
    found = describe_machine()
    assert found.os
    assert found.python
    assert found.usable_cores is None or found.usable_cores >= 1
    peak = peak_rss_mib()
    assert peak is None or peak > 5


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="no clock ticks on this system")
def test_load_of_others_is_all_that_is_not_ours(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")

    def write(total: int, own: int, child: int) -> None:
        (tmp_path / "stat").write_text(f"cpu  {total} 0 0 500 0 0 0 0 0 0\ncpu0 1\n")
        for pid, used in ((os.getpid(), own), (77, child)):
            (tmp_path / str(pid)).mkdir(exist_ok=True)
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) R {' '.join(['0'] * 10)} {used} 0 0 0 20 0")

    now = [0.0]
    write(1000, 10, 20)
    watch = LoadWatch(lambda: [77], proc=tmp_path, clock=lambda: now[0])
    now[0] = 10.0
    write(1000 + 19 * ticks, 10 + 1 * ticks, 20 + 8 * ticks)
    assert watch.busy_cores() == pytest.approx(1.0)
    assert "1.0 cores" in (watch.warning() or "")
    write(1000 + 10 * ticks, 10 + 1 * ticks, 20 + 8 * ticks)
    assert watch.busy_cores() == pytest.approx(0.1)
    assert watch.warning() is None
    (tmp_path / "77" / "stat").unlink()  # it failed: from now on, what it used is told as our children's
    write_own = f"{os.getpid()} (a) R {' '.join(['0'] * 10)} {10 + 1 * ticks} 0 {20 + 8 * ticks} 0 20 0"
    (tmp_path / str(os.getpid()) / "stat").write_text(write_own)
    (tmp_path / "stat").write_text(f"cpu  {1000 + 19 * ticks} 0 0 500 0 0 0 0 0 0\ncpu0 1\n")
    assert watch.busy_cores() == pytest.approx(1.0), "what it used before we watched hides nothing"


def test_an_imitated_older_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert describe_machine().limited_to == "AVX2"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert describe_machine().limited_to is None
