"""The label cache: whole chunks on disk, resumed, bounded, and equal to what the teacher says."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from teacher_fakes import bases, few_files, little_room, picture, save_teacher

from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.checkpoint import load_checkpoint
from sccg_teacher_student.labels import CHUNK, LabelCache, make_labeller
from sccg_teacher_student.probe import probe_teacher
from sccg_teacher_student.views import make_view

CHUNK_GIB = CHUNK * 3 * 32 * 48 * 2 / 2**30


class Counting:
    """A teacher that halves, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: FloatArray) -> FloatArray:
        self.calls += 1
        assert image.shape == (1, 32, 48)
        return image / 2


def test_chunks_hold_input_label_and_reference_of_each_view(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path / "c", bases(), seed=7)
    cache.fill(Counting(), limit_gib=1, views=CHUNK + 1)
    assert len(cache) == 2 * CHUNK
    numbers = np.array([0, 5, CHUNK, 2 * CHUNK - 1, 5])
    batch = cache.batch(numbers).numpy()
    for number, (image, label, reference) in zip(numbers, batch, strict=True):
        wanted, real = make_view(bases(), 7, int(number))
        np.testing.assert_allclose(image, wanted, atol=5e-4)
        np.testing.assert_allclose(label, wanted / 2, atol=5e-4)
        if real is None:
            assert np.isnan(reference).all()
        else:
            np.testing.assert_allclose(reference, real, atol=5e-4)


def test_a_cache_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first, second, whole = Counting(), Counting(), Counting()
    LabelCache(tmp_path / "c", bases(), 0).fill(first, limit_gib=1, views=CHUNK)
    resumed = LabelCache(tmp_path / "c", bases(), 0)
    assert len(resumed) == CHUNK
    resumed.fill(second, limit_gib=1, views=3 * CHUNK)
    assert (first.calls, second.calls) == (CHUNK, 2 * CHUNK)
    straight = LabelCache(tmp_path / "d", bases(), 0)
    straight.fill(whole, limit_gib=1, views=3 * CHUNK)
    assert resumed.chunks == straight.chunks
    for one, other in ((cache.chunk(number) for cache in (resumed, straight)) for number in range(resumed.chunks)):
        np.testing.assert_array_equal(one, other)


def test_a_shorter_run_uses_only_its_own_share_of_a_longer_cache(tmp_path: Path) -> None:
    LabelCache(tmp_path, bases(), 0).fill(Counting(), limit_gib=1, views=4 * CHUNK)
    cache, teacher = LabelCache(tmp_path, bases(), 0), Counting()
    cache.fill(teacher, limit_gib=1, views=CHUNK + 1)
    assert (len(cache), teacher.calls) == (2 * CHUNK, 0)
    assert len(LabelCache(tmp_path, bases(), 0)) == 4 * CHUNK, "the rest stays on disk"


def test_the_limit_on_disk_is_kept(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path, bases(), 0)
    cache.fill(Counting(), limit_gib=3.5 * CHUNK_GIB, views=100 * CHUNK)
    assert len(cache) == 3 * CHUNK
    assert cache.size_gib == pytest.approx(3 * CHUNK_GIB)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3.5 * CHUNK_GIB * 2**30


def test_at_least_one_chunk_is_made(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path, bases(), 0)
    cache.fill(Counting(), limit_gib=1e-12, seconds=-1.0)
    assert len(cache) == CHUNK


def test_time_ends_the_labelling_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    LabelCache(tmp_path, bases(), 0).fill(
        Counting(), limit_gib=1, seconds=0.05, progress=lambda count, seconds: told.append((count, seconds))
    )
    assert [count for count, _ in told] == [CHUNK * (i + 1) for i in range(len(told))]
    assert told[-1][1] >= 0.05
    assert all(seconds < 0.05 for _, seconds in told[:-1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_teacher_that_is_not_finite_is_refused_and_nothing_is_written(tmp_path: Path, value: float) -> None:
    def broken(image: FloatArray) -> FloatArray:
        output = image.copy()
        output[0, 3, 3] = value
        return output

    with pytest.raises(RefusedError, match="view 0 is not finite"):
        LabelCache(tmp_path, bases(), 0).fill(broken, limit_gib=1, views=1)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_whole_chunks(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path / "c", bases(), 0)
    cache.grow(Counting())
    with little_room(1000), pytest.raises(OSError, match="too large") as caught:
        cache.grow(Counting())
    assert caught.value.filename == str(tmp_path / "c" / "00001.npy")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["00000.npy"]


def test_an_interrupted_chunk_leaves_nothing_and_leftovers_are_ignored(tmp_path: Path) -> None:
    teacher = Counting()

    def interrupted(image: FloatArray) -> FloatArray:
        if teacher.calls == CHUNK + 3:
            raise KeyboardInterrupt
        return teacher(image)

    cache = LabelCache(tmp_path, bases(), 0)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(interrupted, limit_gib=1, views=2 * CHUNK)
    assert [path.name for path in tmp_path.iterdir()] == ["00000.npy"]
    (tmp_path / ".00001-abcd.npy").write_bytes(b"half a chunk")
    assert len(LabelCache(tmp_path, bases(), 0)) == CHUNK


def other_type(path: Path) -> None:
    np.save(path, np.zeros((CHUNK, 3, 32, 48), np.float32))


def fewer_views(path: Path) -> None:
    np.save(path, np.zeros((3, 3, 32, 48), np.float16))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an array"),
        other_type,
        fewer_views,
    ],
    ids=["truncated", "header", "empty", "text", "float32", "fewer views"],
)
def test_a_damaged_chunk_is_made_again_with_one_warning(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    LabelCache(tmp_path, bases(), 0).fill(Counting(), limit_gib=1, views=3 * CHUNK)
    good = (tmp_path / "00001.npy").read_bytes()
    damage(tmp_path / "00001.npy")  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        cache = LabelCache(tmp_path, bases(), 0)
    assert len(cache) == CHUNK
    assert ["00001.npy is damaged" in record.getMessage() for record in caplog.records] == [True]
    cache.fill(Counting(), limit_gib=1, views=3 * CHUNK)
    assert len(cache) == 3 * CHUNK
    assert (tmp_path / "00001.npy").read_bytes() == good


def test_labels_are_the_teachers_outputs(tmp_path: Path) -> None:
    teacher = load_checkpoint(save_teacher(tmp_path / "net.pth", ngf=8))
    label, engine = make_labeller(teacher.generator, (32, 48), torch.device("cpu"))
    image = picture(5)[None]
    with torch.inference_mode():
        expected = teacher.generator(torch.from_numpy(image)[None])[0].numpy()
    # bfloat16 rounds each product to 8 bits, and how sums are kept differs between processors
    largest, mean = (0.2, 0.01) if "bf16" in engine else (1e-4, 1e-5)
    assert expected.std() > 0.05
    assert np.abs(label(image) - expected).max() < largest
    assert np.abs(label(image) - expected).mean() < mean
    first, second = label(image), label(picture(6)[None])
    assert not np.array_equal(first, second), "outputs are copies, not views of the engine's memory"


def test_the_labeller_refuses_slices_of_another_size(tmp_path: Path) -> None:
    teacher = load_checkpoint(save_teacher(tmp_path / "net.pth"))
    label, _ = make_labeller(teacher.generator, (32, 48), torch.device("cpu"))
    with pytest.raises(InputError, match=r"\(48, 32\)"):
        label(np.zeros((1, 48, 32), np.float32))


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (128, 128)])
def test_the_probe_knows_what_a_teacher_follows(size: tuple[int, int]) -> None:
    image = picture(0, size)[None]
    local = probe_teacher(lambda given: given * np.float32(0.5), image)
    assert local["shift4"] == 100
    assert local["affine"] < 45
    by_slice = probe_teacher(lambda given: np.clip((given - given.mean()) / given.std() / 3, -1, 1), image)
    assert by_slice["affine"] > 60
    ramp = np.linspace(-0.5, 0.5, size[1], dtype=np.float32)
    assert probe_teacher(lambda given: given * 0 + ramp, image)["shift4"] < 45


CTRL_C = """
import os, signal, sys, time
import torch
from sccg_teacher_student.checkpoint import load_checkpoint
from sccg_teacher_student.labels import make_labeller
from pathlib import Path
network = load_checkpoint(Path(sys.argv[1])).generator
first, second = (make_labeller(network, (32, 48), torch.device("cpu")) for _ in range(2))
del first
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted as usual")
"""


def test_ctrl_c_works_after_two_labellers_are_gone(tmp_path: Path) -> None:
    net = save_teacher(tmp_path / "net.pth", n_blocks=1)
    done = subprocess.run([sys.executable, "-c", CTRL_C, str(net)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted as usual\n"), done.stderr


def test_a_cache_of_many_chunks_opens_few_files(tmp_path: Path) -> None:
    """Linux usually lets a process have 1,024 open, macOS 256."""
    cache = LabelCache(tmp_path, bases(), 0)
    with few_files(16):
        cache.fill(Counting(), limit_gib=1, views=40 * CHUNK)
        again = LabelCache(tmp_path, bases(), 0)
        assert again.batch(np.arange(len(again))).shape == (40 * CHUNK, 3, 32, 48)
