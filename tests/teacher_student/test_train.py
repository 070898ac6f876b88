"""Training of a teacher from end to end on tiny pictures: what is left, resumed, measured and refused."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cyclegan_reference import reference
from PIL import Image
from teacher_fakes import picture, training_record, write_slices
from teacher_runs import LIGHT, run, tiny
from tensorboardX.proto.event_pb2 import Event

from sccg_bench.protocols import Pair
from sccg_bench.report.sheets import grey_png
from sccg_runtime.errors import CheckpointError, InputError
from sccg_teacher_student.checkpoint import load_checkpoint, load_discriminator
from sccg_teacher_student.data.source import open_data
from sccg_teacher_student.loop import Progress
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.teaching import HybridWeights
from sccg_teacher_student.train_config import PRESETS, TrainConfig, teacher_spec
from sccg_teacher_student.validation import Validator


@pytest.fixture(autouse=True)
def no_drawing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips take longer to draw than these teachers to learn; one test looks at them."""
    if "pictures" not in request.node.name:
        monkeypatch.setattr("sccg_teacher_student.validation.strip_png", lambda _, output, *__: grey_png(output))


@pytest.fixture
def config(pairs_folder: Path) -> TrainConfig:
    return tiny(pairs_folder)


def last_state(folder: Path) -> dict[str, Any]:
    """Everything that learns, in one flat dictionary."""
    content = torch.load(folder / "last.pt", weights_only=True)
    state = {f"{part}/{name}": tensor for part in ("network", "average") for name, tensor in content[part].items()}
    for part, tensors in content["beside"].items():
        state |= {f"{part}/{name}": tensor for name, tensor in tensors.items()}
    for index, optimizer in enumerate(content["optimizer"]):
        for number, moments in optimizer["state"].items():
            state |= {f"optimizer {index}/{number}/{name}": tensor for name, tensor in moments.items()}
    return state


def events(folder: Path) -> dict[str, list[int]]:
    """Steps by tag, from TensorBoard's files: length (8 bytes), its checksum (4), an event, its checksum (4)."""
    found: dict[str, list[int]] = {}
    for path in folder.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
            data = data[16 + size :]
    return found


def test_a_run_leaves_teacher_discriminator_logs_and_pictures(config: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = run(config, folder)
    assert {path.name for path in folder.iterdir() if not path.name.startswith("events")} == {
        *("discriminator_mr2ct.safetensors", "last.pt", "log.csv", "run.json", "sheets"),
        *("teacher_mr2ct.safetensors", "validation_mr2ct.csv"),
    }
    with (folder / "validation_mr2ct.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["5", "10"]
    figures = made.facts["teachers"]["mr2ct"]
    assert figures["best"]["ssim"] == pytest.approx(max(float(row["ssim"]) for row in rows), rel=1e-5)
    assert figures["last"]["step"] == 10
    for step in (5, 10):
        with Image.open(folder / "sheets" / f"mr2ct-{step:06d}.png") as sheet:
            assert sheet.width > 300
    tags = events(folder)
    assert tags["mr2ct/psnr_db"] == [5, 10]
    assert tags["loss/structure"] == [10]
    facts = json.loads((folder / "run.json").read_text())
    assert facts["structure_features"].startswith("MIND")
    assert facts["pairs"] == 6
    assert facts["versions"]["torch"] == torch.__version__
    said = " | ".join(made.facts["said"])
    assert "6 pairs of 32x48 pixels (a, b, c), 0 unpaired slices; validation: d" in said
    assert "slices/s with autocast off and channels last" in said
    record = load_checkpoint(folder / "teacher_mr2ct.safetensors").record
    assert record is not None
    assert (record.direction, record.trained_size, record.teacher_sha256) == ("mr2ct", (32, 48), None)
    assert (record.resampled, record.trained_spacing_mm) == (False, (1, 1))


def test_slices_are_resampled_to_the_size_that_was_asked_for(config: TrainConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "unpaired" / "u", 2, (16, 24), seed=7)
    losses = replace(LIGHT, cycle=10.0)
    asked = replace(config, size=(64, 96), steps=2, losses=losses, unpaired_mr=(str(tmp_path / "unpaired"),), batch=4)
    made = run(asked, tmp_path / "run")
    assert made.facts["size"] == [64, 96]
    assert "6 pairs of 64x96 pixels, resampled where stored otherwise" in " | ".join(made.facts["said"])
    checkpoint = load_checkpoint(tmp_path / "run" / "teacher_mr2ct.safetensors")
    record = checkpoint.record
    assert record is not None
    assert (record.trained_size, record.resampled) == ((64, 96), True)
    assert record.trained_spacing_mm == (0.5, 0.5), "twice the pixels over the same area"
    seen = record.sees(open_data(Path(config.data))).load("d", "000").mr
    assert seen is not None
    assert seen.shape == (1, 64, 96)
    with pytest.raises(InputError, match=r"32x48 pixels: resampled to 64x64 .* stretched; .*--size stored"):
        run(replace(asked, size=(64, 64)), tmp_path / "stretched")


def test_the_best_generator_is_that_of_the_best_ssim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, (image, mask) = teacher_spec("resnet-4x1-in"), (picture()[None], -picture()[None])
    validator = Validator(tmp_path, [Pair("a", "0", image, mask)], spec, training_record(), lambda *_: None)
    seen = iter([(20.0, 0.5), (19.0, 0.6), (21.0, 0.55)])

    def measured(*_: Any) -> Any:
        psnr_db, ssim = next(seen)
        figures = {"psnr_db": psnr_db, "ssim": ssim, "mae_u8": 1.0, "hf_ratio": None}
        return SimpleNamespace(summary=SimpleNamespace(quality=figures))

    monkeypatch.setattr("sccg_teacher_student.validation.quality", measured)
    generators = [build_generator(spec).eval() for _ in range(3)]
    for step, generator in enumerate(generators):
        validator.run(step, generator)
    kept = load_checkpoint(validator.checkpoint).generator.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in generators[1].state_dict().items())
    assert validator.best[0] == 1


def test_a_validation_that_was_broken_off_is_made_again(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: Any) -> None:
        raise KeyboardInterrupt  # the second Ctrl-C does not wait

    run(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("sccg_teacher_student.validation.append_row", break_off)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "parts")
    with (tmp_path / "parts" / "validation_mr2ct.csv").open("a", encoding="utf-8") as file:
        file.write("step,psnr_db,ssim,mae_u8,hf_ratio\n5,21.0,0.")  # the power went
    made = run(config, tmp_path / "parts", resume=True)
    figures = [(tmp_path / name / "validation_mr2ct.csv").read_text() for name in ("whole", "parts")]
    assert figures[0] == figures[1]
    best = load_checkpoint(tmp_path / "whole" / "teacher_mr2ct.safetensors").generator.state_dict()
    kept = load_checkpoint(tmp_path / "parts" / "teacher_mr2ct.safetensors").generator.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in best.items()), made.facts["teachers"]


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "muon", "generator": "resnet-16x1-in", "average_decay": 0.9, "decay": True}]
)
def test_ten_steps_are_five_and_five_more(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    from sccg_teacher_student.loop import Trainer

    config = replace(config, **changes)
    plain = Trainer.run
    often = lambda self, report, **options: plain(self, report, every=1, **options)  # noqa: E731
    monkeypatch.setattr("sccg_teacher_student.train.Trainer.run", often)

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            signal.raise_signal(signal.SIGINT)

    run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "parts", report=stop)
    assert not (tmp_path / "parts" / "run.json").exists()
    run(config, tmp_path / "parts", resume=True)
    whole, parts = last_state(tmp_path / "whole"), last_state(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert any(name.startswith("discriminator") for name in whole)
    assert any(name.startswith("projections") for name in whole)
    assert any(name.endswith("momentum_buffer") for name in whole) is bool(changes)
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    figures = [(tmp_path / name / "validation_mr2ct.csv").read_text() for name in ("whole", "parts")]
    assert figures[0] == figures[1], "the validation of the step that was interrupted, too"


def test_the_seed_decides_what_is_learned(config: TrainConfig, tmp_path: Path) -> None:
    short = replace(config, losses=LIGHT, steps=2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(replace(short, seed=seed), tmp_path / name)
    states = [last_state(tmp_path / name) for name in "abc"]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())


def test_accumulated_parts_learn_as_one_batch_does(config: TrainConfig, tmp_path: Path) -> None:
    """Adam's first moment after one step is half the gradient."""
    short = replace(config, losses=LIGHT, steps=1, batch=4)
    run(short, tmp_path / "whole")
    run(replace(short, accumulate=2), tmp_path / "parts")
    whole, parts = last_state(tmp_path / "whole"), last_state(tmp_path / "parts")
    for name in (name for name in whole if name.endswith("exp_avg")):
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-5)


def test_what_is_left_is_what_others_read(config: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(replace(config, steps=2, save_format="cyclegan"), folder)
    image = torch.rand(1, 1, 32, 48) * 2 - 1
    best = load_checkpoint(folder / "teacher_mr2ct.safetensors").generator(image)
    for name in ("latest_net_G_mr2ct.pth", "last.pt"):
        torch.testing.assert_close(load_checkpoint(folder / name).generator(image), best)
    theirs = reference(0, ngf=4, n_blocks=1)
    theirs.load_state_dict(torch.load(folder / "latest_net_G_mr2ct.pth", weights_only=True))
    torch.testing.assert_close(theirs.eval()(image), best)
    critics = [load_discriminator(folder / f"{name}") for name in ("discriminator_mr2ct.safetensors",)]
    critics.append(load_discriminator(folder / "latest_net_D_mr2ct.pth"))
    torch.testing.assert_close(critics[0].eval()(image), critics[1].eval()(image))
    with pytest.raises(CheckpointError, match="PatchGAN discriminator"):
        load_checkpoint(folder / "latest_net_D_mr2ct.pth")
    with pytest.raises(CheckpointError, match="does not fit its network"):
        load_discriminator(folder / "latest_net_G_mr2ct.pth")


@pytest.mark.parametrize("unpaired", [False, True])
def test_both_directions_leave_a_teacher_each(config: TrainConfig, tmp_path: Path, unpaired: bool) -> None:
    folder = tmp_path / "run"
    more: dict[str, Any] = {}
    if unpaired:
        for modality in ("mr", "ct"):
            write_slices(tmp_path / modality / "x", 2, (32, 48), seed=9)
            more[f"unpaired_{modality}"] = (str(tmp_path / modality),)
    made = run(replace(config, direction="both", steps=2, **more), folder)
    assert made.facts["unpaired"] == (4 if unpaired else 0)
    assert set(made.teachers) == {"mr2ct", "ct2mr"}
    for direction, path in made.teachers.items():
        record = load_checkpoint(path).record
        assert record is not None
        assert record.direction == direction
        assert (folder / f"discriminator_{direction}.safetensors").is_file()
    last = load_checkpoint(folder / "last.pt")
    assert last.record is not None
    assert last.record.direction == "mr2ct", "the first one alone"
    average = torch.load(folder / "last.pt", weights_only=True)["average"]
    for name, tensor in last.generator.state_dict().items():
        assert torch.equal(tensor, average[f"mr2ct.{name}"]), name
    with (folder / "log.csv").open(newline="") as file:
        assert {"mr2ct_cycle", "ct2mr_cycle"} < set(next(csv.DictReader(file)))


def test_unpaired_slices_train_the_reverse_direction_along(config: TrainConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "more" / "x", 3, (32, 48), seed=9)
    folder = tmp_path / "run"
    made = run(replace(config, unpaired_mr=(str(tmp_path / "more"),), steps=2), folder)
    assert set(made.teachers) == {"mr2ct"}
    assert made.facts["directions_trained"] == ["mr2ct", "ct2mr"]
    assert made.facts["unpaired"] == 3
    assert load_checkpoint(folder / "last.pt").record == load_checkpoint(folder / "teacher_mr2ct.safetensors").record


def test_unpaired_slices_of_the_other_modality(config: TrainConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "more" / "x", 2, (32, 48), seed=9)
    made = run(replace(config, unpaired_ct=(str(tmp_path / "more"),), steps=1, losses=LIGHT), tmp_path / "run")
    assert made.facts["unpaired"] == 2


def test_pairs_are_refined_before_training(config: TrainConfig, tmp_path: Path) -> None:
    made = run(replace(config, refine=True, steps=1, losses=LIGHT), tmp_path / "run")
    assert any("rigid refinement of 6 pairs" in line for line in made.facts["said"])


@pytest.mark.parametrize(("amp", "name"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_autocast_learns_about_the_same(config: TrainConfig, tmp_path: Path, amp: str, name: str) -> None:
    short = replace(config, steps=1)
    run(short, tmp_path / "plain")
    made = run(replace(short, amp=amp), tmp_path / "short")
    assert made.facts["amp"] == name
    losses = []
    for folder in ("plain", "short"):
        with (tmp_path / folder / "log.csv").open(newline="") as file:
            losses.append({key: float(value) for key, value in next(csv.DictReader(file)).items()})
    for part in ("pixel", "adversarial", "discriminator", "structure"):
        assert losses[1][part] == pytest.approx(losses[0][part], rel=0.05)


def test_epochs_take_every_pair_so_often(config: TrainConfig, tmp_path: Path) -> None:
    made = run(replace(config, epochs=2, steps=None, batch=4, losses=LIGHT), tmp_path / "run")
    assert made.facts["steps"] == 3, "twice 6 pairs are 3 batches of 4"


def test_the_literal_reading_trains(config: TrainConfig, tmp_path: Path) -> None:
    literal = replace(config, generator="literal", steps=1, batch=1, structure_features="encoder")
    facts = run(literal, tmp_path / "run").facts
    assert facts["parameters"] < 1e6, "no down-sampling keeps 64 channels"
    assert facts["structure_features"].startswith("first three stages")


def test_the_presets_are_the_papers_table_and_one_for_cpus() -> None:
    paper = TrainConfig(data="", direction="both", **PRESETS["paper"])
    assert (paper.epochs, paper.batch, paper.learning_rate, paper.decay) == (200, 8, 1e-4, False)
    assert (paper.losses.adversarial, paper.losses.pixel, paper.losses.structure) == (1, 100, 10)
    assert (paper.average_decay, paper.losses.uniform_pixels) == (0.0, False)
    spec = teacher_spec(paper.generator)
    assert (spec.width, spec.blocks, spec.norm, spec.downsamples) == (64, 9, "instance", 2)
    assert teacher_spec("literal").downsamples == 0
    assert (paper.optimizer, paper.size) == ("adam", (512, 512))
    cpu = TrainConfig(data="", direction="mr2ct", **PRESETS["cpu"])
    assert (cpu.minutes, cpu.batch, cpu.decay, cpu.size) == (45, 2, True, None)
    assert replace(cpu.losses, structure=10.0) == paper.losses


def test_the_configuration_survives_json(config: TrainConfig) -> None:
    whole = replace(config, unpaired_mr=("/a", "/b"), losses=HybridWeights(cycle=3.0))
    for one in (whole, replace(whole, size=(64, 48))):
        assert TrainConfig.from_json(one.to_json()) == one
    earlier = {name: value for name, value in json.loads(whole.to_json()).items() if name != "size"}
    assert TrainConfig.from_json(json.dumps(earlier)) == whole, "before, slices stayed as they were stored"
    for size in ([512], ["a", "b"], [0, 0], [512.5, 512], 512):
        with pytest.raises(InputError):
            TrainConfig.from_json(json.dumps(earlier | {"size": size}))
    for text in (
        "{",
        "[]",
        "[" * 100_000,
        whole.to_json().replace('"seed"', '"sead"'),
        whole.to_json().replace('"mr2ct"', '"up"'),
    ):
        with pytest.raises(InputError):
            TrainConfig.from_json(text)
    for name in ("direction", "losses", "structure_features", "generator"):
        values = json.loads(whole.to_json())
        values["losses"] |= {"structure": 1.0}
        with pytest.raises(InputError):
            TrainConfig.from_json(json.dumps(values | {name: None}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"direction": "sideways"}, "'sideways'"),
        ({"epochs": 3}, "one of --epochs, --steps and --minutes"),
        ({"steps": None}, "one of --epochs"),
        ({"steps": 0}, "above zero"),
        ({"minutes": float("inf"), "steps": None}, "above zero"),
        ({"batch": 0}, "above zero"),
        ({"learning_rate": 1.0}, "--learning-rate"),
        ({"save_format": "onnx"}, "none of sccg, cyclegan"),
        ({"structure_features": "vgg:nowhere"}, "no file nowhere"),
        ({"generator": "s2d-16x2"}, "a teacher is standard, literal or resnet"),
        ({"generator": "unet"}, "'unet'"),
    ],
)
def test_options_that_make_no_sense_are_refused(config: TrainConfig, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(config, **changes)


def test_a_batch_that_cannot_be_cut_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a batch of 2 slices cannot be cut into 4 parts"):
        run(replace(config, accumulate=4), tmp_path / "run")


def grow(path: Path) -> None:
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)


@pytest.mark.parametrize("where", ["train/b", "val/d"])
def test_a_slice_without_partner_or_of_another_size_is_named(config: TrainConfig, tmp_path: Path, where: str) -> None:
    case = Path(config.data) / where
    grow(case / "ct" / "001.png")
    with pytest.raises(InputError, match=r"mr is 32x48, ct is 40x48.*one size"):
        run(config, tmp_path / "run")
    shutil.rmtree(case / "ct")
    with pytest.raises(InputError, match=f"{case.name}/000 is not a pair"):
        run(config, tmp_path / "run")


def test_validation_slices_of_another_size_are_named(config: TrainConfig, tmp_path: Path) -> None:
    for modality in ("mr", "ct"):
        grow(Path(config.data) / "val" / "d" / modality / "001.png")
    with pytest.raises(InputError, match=r"d/001 is 40x48 pixels.*one size"):
        run(config, tmp_path / "run")


def test_a_data_set_without_train_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    shutil.rmtree(Path(config.data) / "train")
    with pytest.raises(InputError, match="no train/; nothing to learn from"):
        run(config, tmp_path / "run")


def test_one_case_alone_trains_and_says_that_nothing_validates(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "one"
    shutil.copytree(Path(config.data) / "train" / "a", data / "a")
    with caplog.at_level(logging.WARNING):
        made = run(replace(config, data=str(data), steps=1, losses=LIGHT), tmp_path / "run")
    assert made.facts["validated_on_training_cases"]
    assert any("a training case stands in" in line for line in made.facts["said"])
    assert any("mr2ct on training slices: psnr_db" in line for line in made.facts["said"])
    assert not any("on held-out slices" in line for line in made.facts["said"])
