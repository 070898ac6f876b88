"""The students that ``plan`` times: one form at many capacities, and controls; and those that ``study`` trains."""

from __future__ import annotations

from sccg_teacher_student.networks.spec import PRESETS

_DENSE = (
    *("16x4", "32x2", "32x3", "32x4", "48x2", "48x3", "48x4", "64x3", "64x4", "64x6", "64x8", "64x10"),
    *("96x3", "96x4", "96x6"),
)
_IN_GROUPS = ("64x2", "64x4", "64x6", "64x8", "64x12")
CANDIDATES: tuple[str, ...] = (
    *(f"s2d-{size}-h16-nostd-in1-tanh" for size in _DENSE),
    *(f"s2d-{size}-h16-g16-nostd-in1-tanh" for size in _IN_GROUPS),
    *PRESETS.values(),
)
"""Names of students that may be chosen: of the presets' form, for which multiply-adds say how near they come."""
CONTROLS: tuple[str, ...] = (
    *("s2d-48x6-plain", "s2d-64x2-nostd-in1-tanh", "s2d-64x2-h32-nostd-in1-tanh", "s2d-64x2-h16-nostd-in-tanh"),
    *("s2d-64x2-h16-in1-tanh", "s2d-64x2-h16-nostd-tanh", "s2d-64x2-h16-nostd-nodil-in1-tanh"),
    *("s2d-64x2-h16-branch-nostd-in1-tanh", "s2d-64x2-h16-nostd-in-notail-tanh", "s2d-64x2-h16-nostd-in1"),
    *("s2d-48x3", "s2d-64x6", "s2d-48x3-in", "s2d-48x3-o3-nostd-in", "s2d-48x3-k7-nostd-in", "s2d-48x6-dw7-nostd-in"),
    *("s2d-32x3-u96-nostd-in", "s2d-48x4-u128-nostd-in", "s2d-64x4-f8-nostd-in", "s2d-96x4-f8-nostd-in"),
    *("resnet-16x9-bn", "resnet-16x9-in"),
)
"""What is known to be slower for what it can do, or to see or keep less: shown for comparison."""
STUDIED: tuple[str, ...] = (
    *("resnet-16x9-in", "resnet-16x9-bn", "s2d-48x6-plain", *PRESETS.values()),
    *("s2d-48x3", "s2d-48x3-in", "s2d-48x4-h16-in", "s2d-48x3-branch", "s2d-32x3-u96", "s2d-64x6"),
    *("s2d-64x3-h16-nostd-in", "s2d-64x2-h16-nostd-in1", "s2d-64x8-h16-g16-nostd-in1-tanh"),
)
"""What others would ship, the plain control, the presets, and one of each further form that promises something."""
