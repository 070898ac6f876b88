"""What models of a bench say of themselves, whether they belong together, and what makes figures mean less."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Lab

from sccg_bench.protocols import Pair
from sccg_compress.known import learn
from sccg_compress.models import find_model
from sccg_compress.sources import choose_data, record_of
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint
from sccg_teacher_student.data.source import DataSource, open_data


def test_a_record_made_from_the_data_holds_few_slices_at_once(
    lab: Lab, living: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, load = load_checkpoint(lab.teacher), DataSource.load

    def watched(source: DataSource, case: str, name: str) -> Pair:
        pair = load(source, case, name)
        living.watch(pair.mr)
        return pair

    monkeypatch.setattr(DataSource, "load", watched)
    found = record_of(replace(kept, record=None), "mr2ct", open_data(lab.phantom))
    assert living.seen == found.input_statistics.slices > 10
    assert living.most <= 3
    assert kept.record is not None
    assert found.input_statistics == kept.record.input_statistics


def test_cases_that_a_network_learned_from_are_told(lab: Lab) -> None:
    models, source = [find_model(lab.run)], open_data(lab.phantom)
    known = learn(models, None, None)
    assert known.compare(source, source.splits["test"]) == []
    told = known.compare(source, [*source.splits["test"], source.splits["train"][0]])
    assert told == ["first/student.safetensors learned from 1 of these 2 cases"]


def test_cases_of_another_scale_are_told_wherever_they_stand(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    source, ours = open_data(lab.phantom), DataSource.spacing_mm
    cases = source.splits["train"]

    def of_case(source: DataSource, wanted: Sequence[str] = ()) -> tuple[float, float] | None:
        return (9.0, 9.0) if list(wanted) == [cases[-1]] else ours(source, wanted)

    monkeypatch.setattr(DataSource, "spacing_mm", of_case)
    known = learn([find_model(lab.run)], None, None)
    for order in (cases, cases[::-1]):
        (told,) = (line for line in known.compare(source, order) if "per pixel" in line)
        assert told.endswith(f"slices of 9 x 9 mm: judge with care ({cases[-1]})")


def test_cases_are_known_again_in_another_folder_and_by_a_bundle_alone(lab: Lab, bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(lab.phantom / "train", tmp_path / "copy")
    known = learn([find_model(lab.run)], None, None)
    cases = open_data(lab.phantom).splits["train"]
    told = f"may have learned from {len(cases)} of these {len(cases)} cases: they have its names"
    for folder in (lab.phantom / "train", tmp_path / "copy"):
        assert known.compare(open_data(folder), cases) == [f"first/student.safetensors {told}"]
    alone = learn([find_model(bundles / "small.sccg")], None, None)
    source = open_data(lab.phantom)
    assert [line.partition(" ")[2] for line in alone.compare(source, cases)] == [told]
    assert alone.compare(source, source.splits["test"]) == []
    contracts = {path: replace(one, calibration={"names": 5}) for path, one in alone.contracts.items() if one}
    assert replace(alone, contracts=contracts).compare(source, cases) == [], "whatever a bundle says"


def test_no_hash_of_many_files_of_one_name_is_lost(lab: Lab) -> None:
    folders = [lab.run, *(lab.root / part / "first" for part in "abc")]
    for number, folder in enumerate(folders[1:]):
        shutil.copytree(lab.run, folder)
        kept = load_checkpoint(folder / "student.safetensors")
        assert kept.record is not None
        (folder / "student.safetensors").unlink()
        record = replace(kept.record, data=f"data {number}")
        save_checkpoint(folder / "student.safetensors", kept.generator, kept.spec, record)
    hashes = learn([find_model(folder) for folder in folders], None, None).hashes()
    assert sorted(hashes.values()) == sorted(sha256(folder / "student.safetensors") for folder in folders)


def test_models_of_both_directions_are_not_benched_together(lab: Lab) -> None:
    kept = load_checkpoint(lab.run / "student.safetensors")
    assert kept.record is not None
    record = kept.record
    other = lab.root / "other" / "student.safetensors"  # as every run calls it
    other.parent.mkdir()
    turned = replace(
        record,
        direction="ct2mr",
        input_intensity=record.output_intensity,
        output_intensity=record.input_intensity,
    )
    save_checkpoint(other, kept.generator, kept.spec, turned)
    models = [find_model(lab.run), find_model(other)]
    with pytest.raises(InputError, match=r"student.safetensors is mr2ct, .*other/student.safetensors is ct2mr"):
        learn(models, None, None)
    with pytest.raises(InputError, match="one direction at a time"):
        learn(models[:1], other, None)
    named = lab.root / "latest_net_G_ct2mr.pth"
    torch.save(load_checkpoint(lab.teacher).generator.state_dict(), named)
    with pytest.raises(InputError, match=r"latest_net_G_ct2mr\.pth by its name is ct2mr"):
        learn(models[:1], named, None)
    assert learn([find_model(named)], named, "mr2ct").direction == "mr2ct", (
        "a name alone is no word against --direction"
    )


def test_names_say_a_direction_where_no_record_does(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_checkpoint(lab.teacher).generator.state_dict()
    unnamed, mr2ct, ct2mr = (lab.root / f"{name}.pth" for name in ("latest_net_G", "net_mr2ct", "net_ct2mr"))
    for path in (unnamed, mr2ct, ct2mr):
        torch.save(weights, path)
    assert learn([find_model(unnamed)], ct2mr, None).direction == "ct2mr", "the teacher's name counts as well"
    assert "direction: ct2mr, from the name of net_ct2mr.pth" in capsys.readouterr().err
    assert learn([find_model(unnamed)], None, None).direction == "mr2ct"
    assert "assumed" in capsys.readouterr().err
    for models, teacher in (([ct2mr], mr2ct), ([ct2mr, mr2ct], None), ([ct2mr], lab.teacher)):
        with pytest.raises(InputError, match="one direction at a time"):
            learn([find_model(path) for path in models], teacher, None)


def test_a_broken_bundle_alone_is_an_error(lab: Lab) -> None:
    path = lab.root / "broken.sccg"
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"broken\.sccg is not a bundle"):
        learn([find_model(path)], None, None)


def test_another_teacher_than_the_bundles_own_is_told(
    lab: Lab, bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [find_model(bundles / "small.sccg")]
    source = open_data(lab.phantom)
    cases = source.splits["test"]
    assert learn(models, lab.teacher, None).compare(source, cases) == []
    assert capsys.readouterr().err == ""
    told = learn(models, lab.run / "student.safetensors", None).compare(source, cases)
    name = f"{bundles.name}/small.sccg"
    assert told == [f"{name} learned from another teacher; drift is to student.safetensors"]
    assert capsys.readouterr().err.splitlines() == told
    learn([find_model(lab.run)], lab.teacher, None).compare(source, cases)
    assert "another teacher" not in capsys.readouterr().err
    kept = load_checkpoint(lab.teacher)
    assert kept.record is not None
    other = lab.root / "other.safetensors"
    save_checkpoint(other, kept.generator, kept.spec, replace(kept.record, simulated_data=False))
    learn([find_model(lab.run)], other, None).compare(source, cases)
    assert "student.safetensors learned from another teacher" in capsys.readouterr().err, "without a bundle, too"


def test_data_have_the_size_that_the_first_network_knows(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    kept = load_checkpoint(lab.run / "student.safetensors")
    assert kept.record is not None
    record = replace(kept.record, trained_size=(32, 32), trained_spacing_mm=None, resampled=True)
    other = lab.root / "other.safetensors"
    save_checkpoint(other, kept.generator, kept.spec, record)
    known = learn([find_model(other)], None, None)
    assert choose_data(lab.phantom, known.record, None).size == (32, 32)
    assert choose_data(None, known.record, None).path == lab.phantom
    assert choose_data(lab.phantom, learn([find_model(lab.run)], other, None).record, None).size is None
    stored, seen = open_data(lab.phantom), choose_data(lab.phantom, known.record, None)
    known.compare(stored, stored.splits["test"])
    assert "other.safetensors learned at 32x32 pixels; slices of " in capsys.readouterr().err
    known.compare(seen, seen.splits["test"])
    assert capsys.readouterr().err == ""
    learn([find_model(lab.run)], None, None).compare(seen, seen.cases)
    assert "student.safetensors learned at " in (told := capsys.readouterr().err)
    assert "mm per pixel; slices of " in told
