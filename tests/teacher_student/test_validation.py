"""A teacher's validation keeps the best generator, as it is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from teacher_fakes import picture, training_record

from sccg_bench.protocols import Pair
from sccg_runtime.errors import InputError
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


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfestep,ssim\n5,0.7\n",
        b"step,ssim\n5,0.7\n",
        b"step,psnr_db,ssim,mae_u8,hf_ratio\n5,1,?,1,1\n",
        b"step;psnr_db;ssim;mae_u8;hf_ratio\n5;20;0,7;1;1\n",
        b'"step","psnr_db","ssim","mae_u8","hf_ratio"\n"5","20","0.7","1","1"\n',
    ],
)
def test_figures_that_cannot_be_read_are_told(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "validation_mr2ct.csv").write_bytes(text)
    with pytest.raises(InputError, match=r"validation_mr2ct\.csv is damaged"):
        Validator(tmp_path, [], student_spec("resnet-4x1-in"), training_record(), lambda *_: None, step=9)
    assert (tmp_path / "validation_mr2ct.csv").read_bytes() == text, "what may be mended is kept"


def test_an_empty_table_as_a_full_disk_leaves_it_is_none(tmp_path: Path) -> None:
    (tmp_path / "validation_mr2ct.csv").touch()
    record = training_record()
    assert Validator(tmp_path, [], student_spec("resnet-4x1-in"), record, lambda *_: None, step=9).rows == {}
