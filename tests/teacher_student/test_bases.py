"""Slices that views are made from: which are taken, at which scale, and what is kept in memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from teacher_fakes import write_slices

from sccg_runtime.errors import InputError
from sccg_teacher_student import bases
from sccg_teacher_student.bases import Bases, SliceMemory, collect_bases
from sccg_teacher_student.data.phantom_dicom import write_phantom
from sccg_teacher_student.data.settings import read_settings
from sccg_teacher_student.data.source import DataSource, open_data, open_unpaired


def collected(
    data: Path,
    unpaired: Path,
    cases: tuple[str, ...] = ("a", "b", "c"),
    told: list[str] | None = None,
    size: tuple[int, int] | None = None,
) -> Bases:
    say = ([] if told is None else told).append
    options: dict[str, Any] = {"strides": (4,), "reverse": None, "device": torch.device("cpu"), "say": say}
    return collect_bases(replace(open_data(data), size=size), cases, "mr2ct", [unpaired], None, **options)


def test_of_an_unpaired_folder_with_splits_only_the_train_split_is_taken(pairs_folder: Path) -> None:
    found = collected(pairs_folder / "train", pairs_folder)
    assert {base.case for base in found.slices[-found.unpaired :]} == {"pairs/a", "pairs/b", "pairs/c"}


def test_an_unpaired_folder_without_a_train_split_is_refused(pairs_folder: Path, tmp_path: Path) -> None:
    write_slices(tmp_path / "more" / "val" / "x", 1, (32, 48), seed=5)
    with pytest.raises(InputError, match="has val cases, but none to train on"):
        collected(pairs_folder, tmp_path / "more")


@pytest.mark.parametrize("case", ["val/d", "train/c", "val/d/mr", "train/c/mr"])
def test_held_out_cases_of_the_paired_data_do_not_come_back_as_unpaired_ones(
    pairs_folder: Path, tmp_path: Path, case: str
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x").symlink_to(pairs_folder / case)
    with pytest.raises(InputError, match="x is a held-out case of the paired data"):
        collected(pairs_folder, tmp_path / "more", cases=("a", "b"))
    (tmp_path / "more" / "x").unlink()
    (tmp_path / "more" / "x").mkdir()
    (tmp_path / "more" / "x" / "mr").symlink_to(pairs_folder / case.removesuffix("/mr") / "mr")
    with pytest.raises(InputError, match="x is a held-out case of the paired data"):
        collected(pairs_folder, tmp_path / "more", cases=("a", "b"))


@pytest.mark.parametrize("how", [shutil.copy, os.link, os.symlink])
def test_held_out_slices_do_not_come_back_as_copies(
    pairs_folder: Path, tmp_path: Path, how: Callable[[Path, Path], object]
) -> None:
    (tmp_path / "more" / "x").mkdir(parents=True)
    how(pairs_folder / "val" / "d" / "mr" / "001.png", tmp_path / "more" / "x" / "7.png")
    with pytest.raises(InputError, match="x/7 is d/001 of the paired data, which is held out"):
        collected(pairs_folder, tmp_path / "more")
    assert collected(pairs_folder, tmp_path / "more", cases=("a", "b", "c", "d")).unpaired == 1


@pytest.mark.parametrize("size", [None, (96, 96)])
def test_held_out_slices_are_found_in_a_series_of_another_scale(tmp_path: Path, size: tuple[int, int] | None) -> None:
    """MR has no unit: what becomes white is the whole series', and paired data often hold some slices of it only."""
    write_phantom(tmp_path / "data", patients=3, slices=3, size=64)
    shutil.copytree(tmp_path / "data" / "val" / "case02" / "mr", tmp_path / "more" / "x")
    source = replace(open_data(tmp_path / "data"), size=size)
    whole = source.load("case02", "0002").mr
    for modality in ("mr", "ct"):
        (tmp_path / "data" / "val" / "case02" / modality / "0001.dcm").unlink()
    part = replace(open_data(tmp_path / "data"), size=size).load("case02", "0001").mr
    assert whole is not None
    assert part is not None
    assert np.abs(whole - part).max() > 0.01, "the same slice, otherwise scaled"
    with pytest.raises(InputError, match="x/0002 is case02/0001 of the paired data, which is held out"):
        collected(source.path, tmp_path / "more", cases=("case01",), size=size)


def test_a_mark_alone_is_no_pattern() -> None:
    image = np.full((64, 64), -1, np.float32)
    image[2:6, 2:8] = 1
    assert bases.pattern(image) is None
    image[20:30, 20:30] = 0.5
    assert bases.pattern(image) is not None


def test_blank_slices_are_no_copies(pairs_folder: Path, tmp_path: Path) -> None:
    blank = Image.fromarray(np.zeros((32, 48), np.uint8))
    blank.save(pairs_folder / "val" / "d" / "mr" / "001.png")
    write_slices(tmp_path / "more" / "x", 1, (32, 48), seed=5)
    blank.save(tmp_path / "more" / "x" / "7.png")
    assert collected(pairs_folder, tmp_path / "more").unpaired == 2


@pytest.mark.parametrize("data", [".", "train"])
def test_an_unpaired_folder_without_settings_has_those_of_the_paired_data(
    pairs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    opened = []
    told: list[str] = []

    def noted(*arguments: Any) -> DataSource:
        opened.append(open_unpaired(*arguments))
        return opened[-1]

    monkeypatch.setattr(bases, "open_unpaired", noted)
    write_slices(tmp_path / "more" / "x", 1, (32, 48), seed=5)
    collected(pairs_folder / data, tmp_path / "more", told=told)
    assert told == []
    own = (pairs_folder / "sccg.toml").read_text(encoding="utf-8").replace("99.5", "98")
    (tmp_path / "more" / "sccg.toml").write_text(own, encoding="utf-8")
    collected(pairs_folder / data, tmp_path / "more", told=told)
    assert [f"{tmp_path / 'more'} has MR of another intensity than {pairs_folder / data}" in one for one in told] == [
        True
    ]
    assert opened[0].settings == open_data(pairs_folder / data).settings
    assert opened[1].settings == read_settings(tmp_path / "more")
    assert not opened[0].settings.assumed
    assert opened[0].settings != opened[1].settings


def test_an_unpaired_folder_of_another_scale_is_told(pairs_folder: Path, tmp_path: Path) -> None:
    told: list[str] = []
    write_slices(tmp_path / "more" / "x", 1, (32, 48), seed=5)
    own = (pairs_folder / "sccg.toml").read_text(encoding="utf-8").replace("[1.0, 1.0]", "0.9")
    (tmp_path / "more" / "sccg.toml").write_text(own, encoding="utf-8")
    collected(pairs_folder, tmp_path / "more", told=told)
    assert ["have pixels of 0.9 x 0.9 mm and 1 x 1 mm" in one for one in told] == [True]


def test_an_unpaired_folder_of_several_scales_is_told(
    pairs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(_source: DataSource, _cases: object = None) -> None:
        raise InputError("spacing of x is 1 x 1 mm, of y 2 x 2 mm")

    told: list[str] = []
    write_slices(tmp_path / "more" / "x", 1, (32, 48), seed=5)
    monkeypatch.setattr(DataSource, "spacing_mm", differs)
    collected(pairs_folder, tmp_path / "more", told=told)
    assert told == ["spacing of x is 1 x 1 mm, of y 2 x 2 mm: learned from all the same"]


def test_slices_beyond_the_memory_limit_are_read_again() -> None:
    reads = []

    def load(name: str) -> tuple[np.ndarray, np.ndarray]:
        reads.append(name)
        return np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)

    memory = SliceMemory(limit_bytes=2 * 2 * 8 * 8 * 4 + 100)
    loads = {name: memory.remember(lambda name=name: load(name)) for name in "abc"}
    for _ in range(3):
        for one in loads.values():
            one()
    assert sorted(reads) == ["a", "b", "c", "c", "c"]
