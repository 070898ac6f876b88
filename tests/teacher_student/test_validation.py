"""A teacher's validation keeps the best generator, as it is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from teacher_fakes import picture, training_record

from sccg_bench.protocols import Pair
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import student_spec
from sccg_teacher_student.validation import Validator


def test_a_blank_first_slice_does_not_refuse_a_generator_that_is_read_back_unchanged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = student_spec("resnet-16x9-in")
    generator = build_generator(spec).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ct = picture()[None]
    pair = Pair(case="a", slice="0", mr=np.full(ct.shape, -1, np.float32), ct=ct)
    validation = Validator(tmp_path, [pair], spec, training_record(), lambda step, figures: None)
    validation.run(1, generator)
    assert validation.checkpoint.is_file()
    assert generator.state_dict()["model.1.weight"].is_contiguous(memory_format=torch.channels_last), "left as it was"
