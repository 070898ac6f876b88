"""``sccg-compress train``: a teacher that distill takes, an interrupted run that goes on, and one line for errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Cli, Lab, Said

from sccg_compress.train_verb import unpaired_folders
from sccg_runtime.errors import InputError
from sccg_teacher_student.checkpoint import load_checkpoint
from sccg_teacher_student.train_config import PRESETS, TrainConfig

TINY = (
    "--generator",
    "resnet-4x1-in",
    "--structure-features",
    "mind",
    "--batch",
    "2",
    "--device",
    "cpu",
    "--amp",
    "off",
    "--size",
    "stored",
)


def test_a_teacher_and_its_discriminator_go_into_distill(run: Cli, lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "a teacher"
    said = run("train", "--data", lab.phantom, *TINY, "--steps", 2, "--out", folder, "--json", "-")
    assert said.code == 0, said
    facts = json.loads(said.out)
    assert facts["steps"] == 2
    assert facts["run"] == str(folder)
    assert facts["teachers"]["mr2ct"]["best"]["ssim"] is not None
    config = json.loads((folder / "train.json").read_text())
    assert (config["learning_rate"], config["losses"]["pixel"]) == (1e-4, 100.0), (
        "the paper's, where nothing else is said"
    )
    teacher, critic = folder / "teacher_mr2ct.safetensors", folder / "discriminator_mr2ct.safetensors"
    small = ("--student", "s2d-8x1", "--views", 8, "--batch", 2, "--device", "cpu", "--steps", 1)
    said = run("distill", "--teacher", teacher, *small, "--weight-adversarial", 0.1, "--critic", critic)
    assert said.code == 0, said
    assert f"data: {lab.phantom}, as recorded" in said.err
    run("distill", "--teacher", teacher, *small, "--critic", critic).refused("--weight-adversarial")
    critic_of_what = ("--weight-adversarial", 0.1, "--critic", teacher)
    run("distill", "--teacher", teacher, *small, *critic_of_what).refused("does not fit its network")


def test_ctrl_c_leaves_a_run_that_goes_on(run: Cli, lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [
        "--data",
        str(lab.phantom),
        *TINY,
        "--minutes",
        "30",
        "--validate-every",
        "1000000",
        "--out",
        str(folder),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "sccg_compress", "train", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 200
    while not (folder / "log.csv").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 130, said
    assert "go on with: sccg-compress train --resume" in said
    assert load_checkpoint(folder / "last.pt").spec.width == 4
    config = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps(config | {"generator": "resnet-4x2-in"}))
    run("train", "--resume", folder).refused("another run")


def without_room(size_bytes: int, *arguments: object) -> Said:
    """A process of its own that can write no file beyond ``size_bytes``: what a full disk does, with another errno."""
    pytest.importorskip("resource", reason="this system cannot limit the size of files")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, resource.RLIM_INFINITY))"
    code = f"{limit}; from sccg_compress.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_full_disk_is_one_line_and_the_run_goes_on(run: Cli, lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    small = ("--data", lab.phantom, *TINY, "--weight-adversarial", 0, "--uniform-pixels")
    said = without_room(20_000, "train", *small, "--steps", 1, "--out", folder)
    said.refused(f"{folder / 'last.pt'}: File too large; make room", f"sccg-compress train --resume '{folder}'")
    assert run("train", "--resume", folder).code == 0
    options = ("--student", "s2d-8x1", "--views", 16, "--batch", 2, "--device", "cpu", "--steps", 1)
    said = without_room(20_000, "distill", "--teacher", lab.teacher, *options)
    said.refused("00000.npy: File too large; make room", "sccg-compress distill --resume runs/")
    latest = max(path for path in Path("runs").iterdir() if (path / "config.json").is_file() and path.name != "first")
    assert run("distill", "--resume", latest).code == 0


def test_train_tells_what_is_wrong_in_one_line(run: Cli, lab: Lab, tmp_path: Path) -> None:
    data = ("--data", lab.phantom)
    run("train", *data, "--direction", "up").refused("'up'")
    run("train", *data, "--direction", "up", "--unpaired", lab.phantom).refused("'up'")
    run("train", *data, "--weight-pixel", 20000).refused("weight pixel must be 0 or more, and less than 10000")
    run("train", *data, "--structure-features", "mind", "--weight-structure", 0).refused(
        "--weight-structure above zero"
    )
    run("train", *data, "--preset", "gpu").refused("'gpu' is none of paper, cpu")
    run("train", *data, "--optimizer", "sgd").refused("none of adam, muon")
    run("train", *data, "--generator", "s2d-8x1").refused("standard, literal or resnet")
    run("train", *data, "--steps", 3, "--minutes", 1).refused("one of --epochs, --steps and --minutes")
    run("train", *data, "--steps", 0).refused("above zero")
    run("train", *data, "--batch", 0).refused("above zero")
    run("train", *data, "--size", "large").refused("not ROWSxCOLUMNS")
    run("train", *data, "--weight-adversarial", 0).refused("--uniform-pixels")
    run("train", *data, "--structure-features", "vgg:gone.pth").refused("no file", "gone.pth")
    run("train", *data, "--average-decay", 1).refused("--average-decay must")
    run("train", *data, "--weight-cycle", 5).refused("--weight-cycle", "--direction both or --unpaired")
    run("train", *data, "--unpaired", "gone").refused("--unpaired gone: no such folder")
    run("train", *data, "--direction", "both", "--unpaired", lab.phantom).refused("say mr:")
    run("train", *data, "--save-format", "onnx").refused("sccg, cyclegan")
    run("train", *data, "--device", "tpu").refused("'tpu'")
    run("train", *data, "--amp", "int8", "--device", "cpu").refused("'int8'")
    run("train", "--data", tmp_path / "gone").refused("no such folder")
    run("train", *data, "--out", lab.run).refused("exists already", "--resume")
    run("train", "--resume", lab.run).refused("not a teacher's run folder")
    run("train", "--resume", lab.run, "--batch", 3).refused("leave out --batch")
    assert sorted(path.name for path in (lab.root / "runs").iterdir()) == ["first", "latest"], "no run was begun"


def test_options_change_a_preset(run: Cli, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainConfig] = []
    monkeypatch.setattr("sccg_compress.train_command.new_training", lambda config, *_, **__: asked.append(config))
    cpu = ("train", "--data", lab.phantom, "--preset", "cpu")
    assert run(*cpu).code == 0
    assert run(*cpu, "--epochs", 3, "--weight-pixel", 50, "--optimizer", "adam").code == 0
    assert run(*cpu, "--constant", "--average-decay", 0).code == 0
    plain, changed, steady = asked
    assert steady == replace(plain, decay=False, average_decay=0.0)
    assert run("train", "--data", lab.phantom, "--cosine", "--average-decay", 0.9).code == 0
    assert asked.pop() == TrainConfig(data=plain.data, direction="mr2ct", decay=True, average_decay=0.9)
    assert plain == TrainConfig(data=plain.data, direction="mr2ct", **PRESETS["cpu"])
    losses = replace(plain.losses, pixel=50.0)
    assert changed == replace(plain, epochs=3, minutes=None, losses=losses, optimizer="adam")
    sizes = {"64x48": (64, 48), "512": (512, 512), "stored": None}
    for text, size in sizes.items():
        assert run("train", "--data", lab.phantom, "--size", text).code == 0
        assert asked.pop() == TrainConfig(data=plain.data, direction="mr2ct", size=size)


def test_paths_are_kept_whole_so_that_a_run_goes_on_from_another_folder(
    run: Cli, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainConfig] = []
    monkeypatch.setattr("sccg_compress.train_command.new_training", lambda config, *_, **__: asked.append(config))
    Path("weights.pth").touch()
    assert run("train", "--data", lab.phantom, "--structure-features", "vgg:weights.pth").code == 0
    assert asked.pop().structure_features == f"vgg:{Path('weights.pth').resolve()}"


def test_unpaired_folders_say_their_modality_or_are_of_the_input(tmp_path: Path) -> None:
    here = str(tmp_path.resolve())
    assert unpaired_folders([here], "mr2ct") == {"unpaired_mr": (here,), "unpaired_ct": ()}
    assert unpaired_folders([here], "ct2mr") == {"unpaired_mr": (), "unpaired_ct": (here,)}
    assert unpaired_folders([f"mr:{here}", f"ct:{here}"], "both") == {"unpaired_mr": (here,), "unpaired_ct": (here,)}
    with pytest.raises(InputError, match="mr:"):
        unpaired_folders([here], "both")
