"""Which files load, that they then compute what their maker computed, and how the others are refused."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from cyclegan_reference import by_slice, reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from teacher_fakes import little_room, save_teacher, training_record
from torch import nn

from sccg_runtime.errors import CheckpointError, InputError
from sccg_teacher_student.checkpoint import load_checkpoint, load_discriminator, save_checkpoint
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.patchgan import PatchDiscriminator
from sccg_teacher_student.networks.spec import resnet_spec, s2d_spec, student_spec
from sccg_teacher_student.record import TrainingRecord

SLICE = (1, 1, 32, 48)


def saved(tmp_path: Path, content: Any, name: str = "latest_net_G.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def grey(seed: int = 3) -> torch.Tensor:
    return torch.rand(SLICE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def same_output(path: Path, network: nn.Module, channels: int = 1) -> None:
    """The loaded network gives what ``network`` gives on replicated grey, averaged over its output channels."""
    with torch.inference_mode():
        expected = network(grey().expand(-1, channels, -1, -1)).mean(dim=1, keepdim=True)
        output = load_checkpoint(path).generator(grey())
    assert output.shape == expected.shape
    assert expected.std() > 1e-2, "an output without structure would prove nothing"
    assert (output - expected).abs().max() < 1e-5


def refusal(path: Path) -> str:
    """The one line with which the file is refused."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.mark.parametrize("norm", ["instance", "instance-affine", "batch"])
@pytest.mark.parametrize("downsamples", [0, 1, 2])
def test_plain_state_dict_gives_the_reference_output(tmp_path: Path, norm: str, downsamples: int) -> None:
    network = reference(ngf=6, n_blocks=3, norm=norm, n_downsampling=downsamples)
    path = saved(tmp_path, network.state_dict())
    same_output(path, network)
    loaded = load_checkpoint(path)
    assert loaded.spec == resnet_spec(6, 3, norm, downsamples=downsamples)
    assert loaded.notes == ()
    assert loaded.record is None
    assert not loaded.generator.training
    assert not any(parameter.requires_grad for parameter in loaded.generator.parameters())


@pytest.mark.parametrize("norm", ["instance-running", "instance-affine-running"])
def test_running_statistics_of_an_instance_norm_are_left_out(tmp_path: Path, norm: str) -> None:
    network = reference(norm=norm)
    path = saved(tmp_path, network.state_dict())
    same_output(path, by_slice(network))
    loaded = load_checkpoint(path)
    assert loaded.spec.norm == ("instance-affine" if "affine" in norm else "instance")
    assert "running statistics are not used" in loaded.notes[0]


@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_block_layout_tells_padding_and_dropout(tmp_path: Path, padding: str, dropout: bool, norm: str) -> None:
    network = reference(padding_type=padding, use_dropout=dropout, norm=norm)
    path = saved(tmp_path, network.state_dict())
    same_output(path, network)
    loaded = load_checkpoint(path)
    assert loaded.spec.padding == ("zeros" if padding == "zero" else "reflect")
    assert any("dropout" in note for note in loaded.notes) == dropout


@pytest.mark.parametrize(("given_channels", "made_channels"), [(3, 3), (3, 1), (1, 3)])
def test_colour_networks_take_grey_and_give_the_mean_channel(
    tmp_path: Path, given_channels: int, made_channels: int
) -> None:
    network = reference(input_nc=given_channels, output_nc=made_channels)
    path = saved(tmp_path, network.state_dict())
    same_output(path, network, given_channels)
    loaded = load_checkpoint(path)
    assert (loaded.spec.in_channels, loaded.spec.out_channels) == (1, made_channels)
    assert len(loaded.notes) == (given_channels > 1) + (made_channels > 1)


@pytest.mark.parametrize("blocks", [0, 1, 6])
@pytest.mark.parametrize("width", [1, 8])
def test_spec_is_read_off_the_shapes(tmp_path: Path, width: int, blocks: int) -> None:
    loaded = load_checkpoint(save_teacher(tmp_path / "net.pth", ngf=width, n_blocks=blocks))
    assert loaded.spec == resnet_spec(width, blocks, "instance")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: OrderedDict((f"module.{key}", value) for key, value in state.items()),
        lambda state: {f"module.netG.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 200},
        lambda state: {"netG": state, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"G": state, "netD": PatchDiscriminator(width=2).state_dict()},
        lambda state: {"anything": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: nn.Parameter(value) for key, value in state.items()},
    ],
    ids=["module", "module.netG", "state_dict", "with optimiser", "beside a discriminator", "other key", "parameters"],
)
def test_wrapped_state_dicts_load(tmp_path: Path, wrap: Any) -> None:
    network = reference()
    same_output(saved(tmp_path, wrap(network.state_dict())), network)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    network = reference()
    path = saved(tmp_path, {key: value.to(dtype) for key, value in network.state_dict().items()})
    same_output(path, reference().to(dtype).float())
    assert {parameter.dtype for parameter in load_checkpoint(path).generator.parameters()} == {torch.float32}


def test_legacy_files_without_zip_load(tmp_path: Path) -> None:
    network = reference()
    path = tmp_path / "legacy.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    same_output(path, network)


def test_cyclegan_weights_in_safetensors_load(tmp_path: Path) -> None:
    network = reference()
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    same_output(path, network)


@pytest.mark.parametrize(
    "spec",
    [student_spec("resnet-4x2"), student_spec("resnet-4x1-in"), s2d_spec(8, 3), s2d_spec(8, 2, plain=True)],
    ids=lambda spec: spec.name,
)
@pytest.mark.parametrize("spacing", [None, (1.0, 0.5)])
def test_own_files_keep_spec_record_and_outputs(tmp_path: Path, spec: Any, spacing: Any) -> None:
    network = build_generator(spec)
    for _ in range(3):  # running statistics of their own
        network(torch.randn(2, 1, 32, 48))
    network.eval()
    record = training_record(trained_spacing_mm=spacing)
    path = tmp_path / "student.safetensors"
    save_checkpoint(path, network, spec, record)
    loaded = load_checkpoint(path)
    assert (loaded.spec, loaded.record, loaded.notes) == (spec, record, ())
    with torch.inference_mode():
        assert torch.equal(loaded.generator(grey()), network(grey()))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_training_checkpoint_gives_its_averaged_weights(tmp_path: Path) -> None:
    spec, record = s2d_spec(4, 1), training_record()
    now, average = build_generator(spec), build_generator(spec)
    content = {
        "schema": "sccg-run/1",
        "spec": json.dumps(spec.to_dict()),
        "record": json.dumps(record.to_dict()),
        "network": now.state_dict(),
        "average": average.state_dict(),
    }
    path = saved(tmp_path, content, "last.pt")
    loaded = load_checkpoint(path)
    assert (loaded.spec, loaded.record) == (spec, record)
    assert torch.equal(loaded.generator.state_dict()["tail.weight"], average.state_dict()["tail.weight"])
    assert "averaged" in loaded.notes[0]


@pytest.mark.parametrize("lost", ["spec", "record", "average"])
def test_training_checkpoint_without_identity_is_refused(tmp_path: Path, lost: str) -> None:
    spec = s2d_spec(4, 1)
    content = {
        "schema": "sccg-run/1",
        "spec": json.dumps(spec.to_dict()),
        "record": json.dumps(training_record().to_dict()),
        "average": build_generator(spec).state_dict(),
    }
    del content[lost]
    assert "training checkpoint" in refusal(saved(tmp_path, content, "last.pt"))


@pytest.mark.parametrize("text", ["<!DOCTYPE html><html>", "version https://git-lfs.github.com/spec/v1", "# title"])
def test_text_in_the_place_of_a_checkpoint_is_not_called_code(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.pth"
    path.write_text(text)
    said = refusal(path)
    assert "net.pth is no PyTorch file" in said
    assert "code" not in said


class Evil:
    """Unpickling this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "bare pickle"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, how: str) -> None:
    target, path = tmp_path / "was-run", tmp_path / "net.pth"
    content = {"state_dict": reference().state_dict(), "extra": Evil(target)}
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(content["extra"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    refusal(path)
    assert not target.exists()
    if how == "zip":
        assert "code" in refusal(path)
        torch.load(path, weights_only=False)
        assert target.exists(), "the file would run code if it were let"


def test_pickled_modules_are_refused_with_the_way_out(tmp_path: Path) -> None:
    assert "state_dict()" in refusal(saved(tmp_path, build_generator(resnet_spec(2, 1))))


def u_net() -> dict[str, torch.Tensor]:
    return {
        "model.model.0.weight": torch.zeros(4, 1, 4, 4),
        "model.model.1.model.1.weight": torch.zeros(8, 4, 4, 4),
        "model.model.3.weight": torch.zeros(8, 1, 4, 4),
    }


def changed(**tensors: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = reference().state_dict() | {key.replace("_", "."): value for key, value in tensors.items()}
    return {key: value for key, value in state.items() if value is not None}


STEM = torch.zeros(4, 1, 7, 7)
REFUSED: dict[str, tuple[Any, str]] = {
    "optimiser": (
        lambda: torch.optim.Adam(reference().parameters()).state_dict(),
        "optimiser state",
    ),
    "discriminator": (lambda: PatchDiscriminator(width=2).state_dict(), "PatchGAN"),
    "u-net": (u_net, "U-Net"),
    "anti-aliased": (lambda: changed() | {"model.7.filt": torch.zeros(4, 1, 3, 3)}, "anti-aliased"),
    "nan": (lambda: changed(model_1_weight=torch.full_like(STEM, torch.nan)), "not finite"),
    "inf": (lambda: changed(model_1_bias=torch.full((4,), torch.inf)), "not finite"),
    "wrong shape": (lambda: changed(model_4_weight=torch.zeros(8, 3, 3, 3)), r"(8, 3, 3, 3), not (8, 4, 3, 3)"),
    "missing tensor": (lambda: changed(model_4_weight=None, model_4_bias=None), "7x7"),
    "missing bias": (lambda: changed(model_4_bias=None), "model.4.bias missing"),
    "extra tensor": (lambda: changed(model_99_bias=torch.zeros(3)), "model.99.bias unknown"),
    "extra in a block": (
        lambda: changed() | {"model.10.conv_block.3.weight": torch.zeros(16)},
        "model.10.conv_block.3.weight",
    ),
    "other block layout": (
        lambda: {key.replace("conv_block.5", "conv_block.8"): value for key, value in reference().state_dict().items()},
        "layout",
    ),
    "foreign names": (lambda: {"a.b.conv_block.c.weight": torch.zeros(1, 1, 3, 3)}, "a.b.conv_block.c.weight"),
    "torchvision": (lambda: {"layer1.0.conv1.weight": torch.zeros(4, 4, 3, 3), "fc.bias": torch.zeros(2)}, "layer1"),
    "integers": (lambda: changed(model_1_weight=STEM.to(torch.int8)), "model.1.weight is int8"),
    "complex": (lambda: changed(model_1_weight=STEM.to(torch.complex64)), "model.1.weight is complex64"),
    "several": (lambda: {"netG_A": reference().state_dict(), "netG_B": reference().state_dict()}, "netG_A, netG_B"),
    "no tensors": (lambda: {"epoch": 3}, "no tensors"),
    "a list": (lambda: [torch.zeros(3)], "list"),
    "a tensor": (lambda: torch.zeros(3), "Tensor"),
    "empty dict": (dict, "no tensors"),
    "a number inside": (lambda: changed() | {"step": 3}, "step is a int"),
    "sparse": (lambda: changed(model_1_weight=STEM.to_sparse()), "model.1.weight is sparse"),
    "shapes alone": (lambda: changed(model_1_weight=STEM.to("meta")), "model.1.weight is without numbers"),
    "numbered": (lambda: {0: torch.zeros(3), 1: torch.zeros(3)}, "no CycleGAN generator layout: 0, 1"),
    "too wide": (
        lambda: {"model.1.weight": torch.zeros(2000, 1, 7, 7), "model.4.weight": torch.zeros(1, 2000, 7, 7)},
        "width 2000",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_content_is_refused_by_name(tmp_path: Path, what: str) -> None:
    make, words = REFUSED[what]
    assert words in refusal(saved(tmp_path, make()))


def test_truncated_files_are_refused_at_every_length(tmp_path: Path) -> None:
    whole = save_teacher(tmp_path / "whole.pth").read_bytes()
    legacy = tmp_path / "legacy.pth"
    torch.save(reference().state_dict(), legacy, _use_new_zipfile_serialization=False)
    path = tmp_path / "net.pth"
    for content in (whole, legacy.read_bytes()):
        for share in (0, 0.001, 0.01, 0.3, 0.6, 0.99):
            path.write_bytes(content[: int(share * len(content))])
            refusal(path)


@pytest.mark.parametrize("content", [b"", b"hello, I am text\n", b"{}", b"PK\x03\x04", b"\x80\x02.", b"\x80\x05K\x01."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_files_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    refusal(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), start=st.sampled_from([b"", b"\x80\x02", b"\x80\x02}q\x00", b"(", b"PK"]))
def test_arbitrary_bytes_are_refused_in_one_line(tmp_path: Path, content: bytes, start: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(start + content)
    refusal(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        assert "no checkpoint at" in refusal(path)


def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    save_checkpoint(path, build_generator(s2d_spec(4, 1)), s2d_spec(4, 1), training_record())
    return path


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    path = own_file(tmp_path)
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:200], whole[:8], b"\xff" * 8 + whole[8:], whole[:20] + b"\x00" + whole[21:]):
        path.write_bytes(damaged)
        assert "damaged safetensors" in refusal(path)


def test_own_weights_without_metadata_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    safetensors.torch.save_file(build_generator(s2d_spec(4, 1)).state_dict(), path)
    assert "no CycleGAN generator layout" in refusal(path)


GARBAGE: dict[str, Any] = {
    "not JSON": lambda good: "{",
    "null": lambda good: "null",
    "a list": lambda good: "[1, 2]",
    "empty": lambda good: "{}",
    "no record": lambda good: json.dumps({"spec": good["spec"]}),
    "record null": lambda good: json.dumps(good | {"record": None}),
    "record a list": lambda good: json.dumps(good | {"record": [1]}),
    "record text": lambda good: json.dumps(good | {"record": "no"}),
    "spec text": lambda good: json.dumps(good | {"spec": "no"}),
    "unknown key": lambda good: json.dumps(good | {"spec": good["spec"] | {"depth": 3}}),
    "intensity": lambda good: json.dumps(good | {"record": good["record"] | {"input_intensity": "MR"}}),
    "direction": lambda good: json.dumps(good | {"record": good["record"] | {"direction": ["mr2ct"]}}),
    "size": lambda good: json.dumps(good | {"record": good["record"] | {"trained_size": 32}}),
    "sizes": lambda good: json.dumps(good | {"record": good["record"] | {"trained_size": ["a", "b"]}}),
    "spacing": lambda good: json.dumps(good | {"record": good["record"] | {"trained_spacing_mm": [0.5]}}),
    "cases": lambda good: json.dumps(good | {"record": good["record"] | {"train_cases": None}}),
    "names": lambda good: json.dumps(good | {"record": good["record"] | {"val_cases": [3]}}),
    "simulated": lambda good: json.dumps(good | {"record": good["record"] | {"simulated_data": "yes"}}),
    "data": lambda good: json.dumps(good | {"record": good["record"] | {"data": None}}),
    "nested": lambda good: "[" * 100_000,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_the_metadata_is_refused(tmp_path: Path, what: str) -> None:
    spec = s2d_spec(4, 1)
    good = {"spec": spec.to_dict(), "record": training_record().to_dict()}
    path = tmp_path / "student.safetensors"
    safetensors.torch.save_file(build_generator(spec).state_dict(), path, {"sccg": GARBAGE[what](good)})
    assert "metadata" in refusal(path)


def test_metadata_that_names_another_network_is_refused_before_it_is_built(tmp_path: Path) -> None:
    spec = s2d_spec(4, 1)
    huge = resnet_spec(1024, 64, downsamples=5)  # some TiB of weights
    content = json.dumps({"spec": huge.to_dict(), "record": training_record().to_dict()})
    path = tmp_path / "student.safetensors"
    safetensors.torch.save_file(build_generator(spec).state_dict(), path, {"sccg": content})
    assert "does not fit its network" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({3: torch.zeros(2)}, "is not a plain state dict"),
        ({"model.0.weight": torch.zeros(64, 2, 4, 4).to_sparse()}, "model.0.weight is sparse"),
    ],
)
def test_a_discriminator_of_other_content_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        load_discriminator(saved(tmp_path, content))


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = own_file(tmp_path)
    before = path.read_bytes()
    with little_room(2000), pytest.raises(OSError, match="too large"):
        save_checkpoint(path, build_generator(s2d_spec(4, 1)), s2d_spec(4, 1), training_record())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_records_survive_json() -> None:
    record = training_record()
    assert TrainingRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    with pytest.raises(InputError, match="missing or unknown"):
        TrainingRecord.from_dict({"direction": "mr2ct"})


@pytest.mark.parametrize("direction", ["mr2ct", "ct2mr"])
def test_the_shared_teachers_load(direction: str) -> None:
    root = os.environ.get("SCCG_TEST_DATA")
    if root is None:
        pytest.skip("SCCG_TEST_DATA is not set: no real teachers to read")
    path = Path(root) / "teachers" / f"latest_net_G_{direction}.pth"
    if not path.is_file():
        pytest.skip(f"SCCG_TEST_DATA has no {path.name}")
    loaded = load_checkpoint(path)
    assert (loaded.spec.family, loaded.spec.width, loaded.spec.blocks) == ("resnet", 64, 9)
    assert loaded.spec.norm == "instance"
    with torch.inference_mode():
        output = loaded.generator(torch.rand(1, 1, 64, 64) * 2 - 1)
    assert output.shape == (1, 1, 64, 64)
    assert torch.isfinite(output).all()
    assert output.std() > 1e-3
