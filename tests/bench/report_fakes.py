"""One bench run for the tests of reports, made without child processes."""

from __future__ import annotations

from dataclasses import replace

import bench_fakes as fakes
import numpy as np

from sccg_bench.latency import Latency
from sccg_bench.quality import Judge, blurred
from sccg_bench.results import Results, Row, not_measured_row, paper_row, with_speedups
from sccg_bench.run import CONTROL_NAME, BenchResult, with_quality

EVIL = "<script>alert('x')</script>|`*&$\\foo$"


def made(simulated: bool = False, name: str = "int8") -> BenchResult:
    """A run of teacher, control, a good model, a failed one and a missing one, without child processes."""
    pairs = fakes.pairs()
    reference = [pair.ct for pair in pairs if pair.ct is not None]
    teacher = [np.clip(image - np.float32(0.02), -1, 1) for image in reference]
    model = [np.clip(image - np.float32(0.0201), -1, 1) for image in reference]
    judge = Judge(pairs, "mr2ct", teacher)

    def row(label: str, p50: float, **given: object) -> Row:
        latency = Latency(p50, p50 * 1.1, None, p50 * 0.9, p50, 64, 6, p50 * 0.99, p50 * 1.02)
        values = {"device": "cpu", "threads": 2, "size": (512, 512), "quality_size": (64, 64), "latency_ms": latency}
        values |= {"latency_native_ms": replace(latency, p50=p50 / 4)}
        return Row(name=label, **(values | given))  # type: ignore[arg-type]

    rows = (
        with_quality(
            row("teacher", 1800, role="teacher", engine="torch", precision="fp32"), judge.judge(teacher, None, True)
        ),
        with_quality(
            Row(name=CONTROL_NAME, role="control", note="must fail"), judge.judge([blurred(image) for image in teacher])
        ),
        with_quality(
            row(name, 4.5, engine="openvino", precision="int8", precision_ran={"int8": 13}), judge.judge(model, teacher)
        ),
        Row(name="broken", status="failed", note=f"RuntimeError: {EVIL}"),
        not_measured_row("cuda", "no CUDA device"),
        paper_row(),
    )
    results = Results(
        machine={"cpu": "Xeon", "instruction_sets": ["avx2", "avx512_vnni"], "ram_gib": None},
        provenance={"command": f"bench {EVIL}", "hashes": {"a": "b"}, "simulated_data": simulated},
        rows=with_speedups(rows, "teacher"),
        direction="mr2ct",
        profile="quick",
        warnings=("other processes kept 1.0 cores busy",),
    )
    return BenchResult(results, tuple(pairs), {"teacher": teacher, name: model})


FOUND = made()
