"""Specs of every form, and generators of them whose every part does something."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.s2d import FiLM
from sccg_teacher_student.networks.spec import GeneratorSpec, resnet_spec, s2d_spec, student_spec

S2D_NO_NORM = replace(s2d_spec(8, 3), norm="none")
# Every option of an s2d name once, and some together.
OPTIONS = [
    *("s2d-8x2-f2", "s2d-8x2-f8", "s2d-8x3-u12", "s2d-8x2-branch", "s2d-8x2-k5", "s2d-8x2-k7"),
    *(
        "s2d-8x2-dw3",
        "s2d-8x2-dw5",
        "s2d-8x2-dw7",
        "s2d-8x2-nostd",
        "s2d-8x2-nodil",
        "s2d-8x2-nofilm",
        "s2d-8x2-notail",
    ),
    *("s2d-8x2-f8-u12-branch-dw7-plain-notail", "s2d-8x2-f2-branch-k5-nostd-nofilm", "s2d-8x4-f8-branch-nodil-notail"),
    *("s2d-8x2-h4", "s2d-8x2-h4-u12-plain", "s2d-8x2-h4-in"),
    *("s2d-8x2-in", "s2d-8x2-o3-nostd-nodil-in", "s2d-8x2-u12-branch-dw3-in-notail"),
    *("s2d-8x2-in1", "s2d-8x3-h4-nostd-in1", "s2d-8x2-u12-branch-dw3-in1", "s2d-8x2-g4-in1"),
    *("s2d-8x2-tanh", "s2d-8x2-plain-notail-tanh", "s2d-8x3-h4-nostd-in1-tanh"),
]
SPECS = [
    student_spec("resnet-4x2"),
    student_spec("resnet-4x2-in"),
    resnet_spec(4, 1, "instance-affine", downsamples=1),
    replace(resnet_spec(4, 2), padding="zeros"),
    replace(resnet_spec(4, 1), in_channels=2, out_channels=3),
    s2d_spec(8, 4),
    s2d_spec(8, 2, plain=True),
    S2D_NO_NORM,
    replace(s2d_spec(8, 2), factor=8),
    replace(s2d_spec(8, 2), factor=2),
    replace(S2D_NO_NORM, in_channels=3),
    replace(student_spec("s2d-8x2-u12-branch"), norm="none", in_channels=2),
    *map(student_spec, OPTIONS),
]


def used(spec: GeneratorSpec) -> nn.Module:
    """A generator whose norms have statistics and whose FiLM layers do something; in evaluation mode."""
    network = build_generator(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, FiLM):
            for parameter in module.parameters():
                nn.init.normal_(parameter, 0, 0.1)
    for name, parameter in network.named_parameters():
        if name == "tail.weight":
            nn.init.normal_(parameter, 0, 0.1)
    return network.eval()
