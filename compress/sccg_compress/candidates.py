"""The students that ``plan`` times: every form at several capacities, and controls; and those that ``study`` trains."""

from __future__ import annotations

from sccg_teacher_student.networks.spec import PRESETS

CANDIDATES: tuple[str, ...] = (
    *("s2d-16x4", "s2d-32x3", "s2d-32x4", "s2d-32x5", "s2d-48x2", "s2d-48x4", "s2d-48x6"),
    *("s2d-64x2", "s2d-64x3", "s2d-64x4", "s2d-96x4", "s2d-48x3-notail", "s2d-64x4-f8", "s2d-96x4-f8"),
    *("s2d-48x3-branch", "s2d-64x3-branch", "s2d-32x3-u96", "s2d-48x4-u128", "s2d-48x3-in"),
    *PRESETS.values(),
)
"""Names of students that may be chosen, those of the presets among them."""
CONTROLS: tuple[str, ...] = (
    *("s2d-48x6-plain", "s2d-48x3-o3", "s2d-48x3-k7", "s2d-48x6-dw7", "resnet-16x9-bn", "resnet-16x9-in"),
)
"""What is known to be slower for what it can do, or to see less: shown for comparison."""
STUDIED: tuple[str, ...] = (
    *("resnet-16x9-in", "resnet-16x9-bn", "s2d-48x6-plain", *PRESETS.values()),
    *("s2d-64x2", "s2d-48x3-branch", "s2d-32x3-u96", "s2d-48x3-in"),
)
"""What others would ship, the plain control, the presets, and one of each further form that promises something."""
