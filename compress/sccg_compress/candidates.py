"""The students that ``plan`` times: every form at several capacities, and controls; and those that ``study`` trains."""

from __future__ import annotations

from sccg_runtime.contract import Target
from sccg_teacher_student.networks.spec import PRESETS

_FORMS = (
    *("s2d-16x4-nostd-in", "s2d-32x3-nostd-in", "s2d-32x5-nostd-in", "s2d-48x2-nostd-in", "s2d-48x3-nostd-in"),
    *("s2d-48x4-nostd-in", "s2d-64x2-nostd-in", "s2d-64x3-nostd-in", "s2d-64x4-nostd-in", "s2d-96x2-nostd-in"),
    *("s2d-48x3-nostd-in-notail", "s2d-48x3-branch-nostd-in", "s2d-32x3-h16-nostd-in", "s2d-48x3-h16-nostd-in"),
    *("s2d-64x2-h16-nostd-in", "s2d-64x3-h16-nostd-in", "s2d-64x3-h32-nostd-in", "s2d-64x4-h16-nostd-in"),
    *("s2d-64x6-h16-nostd-in", "s2d-64x8-h16-nostd-in", "s2d-96x3-h16-nostd-in", "s2d-96x6-h16-nostd-in"),
    *("s2d-48x3-h16-nostd-in1", "s2d-64x3-nostd-in1", "s2d-64x3-h16-nostd-in1", "s2d-64x4-h16-nostd-in1"),
    *("s2d-64x6-h16-nostd-in1", "s2d-64x10-h16-nostd-in1", "s2d-96x4-h16-nostd-in1"),
    *(f"s2d-{size}-h16-g16-nostd-in1" for size in ("48x4", "64x2", "64x4", "64x6", "64x8", "64x12")),
)
CANDIDATES: tuple[str, ...] = (*(f"{form}-tanh" for form in _FORMS), *PRESETS.values())
"""Names of students that may be chosen, those of the presets among them."""
FILM: tuple[str, ...] = tuple(f"s2d-{size}-tanh" for size in ("32x3", "32x5", "48x3", "64x4", "64x6"))
"""FiLM instead of instance norm: less for the same time in OpenVINO, but ONNX Runtime is slow in instance norm."""
CONTROLS: tuple[str, ...] = (
    *("s2d-48x6-plain", "s2d-48x3-in", "s2d-48x3-o3-nostd-in", "s2d-48x3-k7-nostd-in", "s2d-48x6-dw7-nostd-in"),
    *("s2d-32x3-u96-nostd-in", "s2d-48x4-u128-nostd-in", "s2d-64x4-f8-nostd-in", "s2d-96x4-f8-nostd-in"),
    *("s2d-64x2-h16-nostd-in1", "resnet-16x9-bn", "resnet-16x9-in"),
)
"""What is known to be slower for what it can do, or to see or keep less: shown for comparison."""
STUDIED: tuple[str, ...] = (
    *("resnet-16x9-in", "resnet-16x9-bn", "s2d-48x6-plain", *PRESETS.values()),
    *("s2d-48x3", "s2d-48x3-in", "s2d-48x4-h16-in", "s2d-48x3-branch", "s2d-32x3-u96", "s2d-64x6"),
    *("s2d-64x3-h16-nostd-in", "s2d-64x2-h16-nostd-in1", "s2d-64x8-h16-g16-nostd-in1-tanh"),
)
"""What others would ship, the plain control, the presets, and one of each further form that promises something."""


def contenders(target: Target) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names that may be chosen for a target, names that are shown beside them)."""
    return ((*CANDIDATES, *FILM), CONTROLS) if target == "ort" else (CANDIDATES, (*FILM, *CONTROLS))
