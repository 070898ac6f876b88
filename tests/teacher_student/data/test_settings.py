"""sccg.toml: what it says is taken, what it does not say is assumed aloud, what it should not say is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sccg_runtime.errors import InputError
from sccg_teacher_student.data.settings import assumed_settings, find_settings, read_settings

MR = '[mr]\nkind = "percentile"\npercentile = 99.5\nforeground_above = 0.0588\nlevel = 0.9216\n'
CT = '[ct]\nkind = "hu"\nlow_hu = -1000\nhigh_hu = 1500\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "sccg.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "spacing"),
    [
        ("", None),
        ('spacing_mm = "unknown"\n', None),
        ("spacing_mm = 0.9\n", (0.9, 0.9)),
        ("spacing_mm = [0.8, 1]\n", (0.8, 1.0)),
    ],
)
def test_reads_intensities_and_spacing(tmp_path: Path, line: str, spacing: tuple[float, float] | None) -> None:
    settings = read_settings(write(tmp_path, line + MR + CT))
    assert settings.mr.percentile == 99.5
    assert settings.ct.window_hu == (-1000, 1500)
    assert settings.spacing_mm == spacing
    assert not settings.simulated
    assert not settings.assumed


def test_folder_and_file_give_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, "simulated = true\n" + MR + CT)
    assert read_settings(tmp_path) == read_settings(path)
    assert read_settings(path).simulated


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spacing = 1\n" + MR + CT, "unknown key spacing"),
        (MR, r"table \[ct\] is missing"),
        (MR + CT + "gain = 2\n", "unknown key gain"),
        ("spacing_mm = 0\n" + MR + CT, "spacing_mm must be"),
        ("spacing_mm = [1, 2, 3]\n" + MR + CT, "spacing_mm must be"),
        ("spacing_mm = nan\n" + MR + CT, "spacing_mm must be"),
        ("spacing_mm = true\n" + MR + CT, "spacing_mm must be"),
        ('simulated = "yes"\n' + MR + CT, "simulated must be true or false"),
        ("[mr\n", "not a TOML file"),
        (MR.replace("[mr]", "[ct]") + CT.replace("[ct]", "[mr]"), "cannot be of kind"),
    ],
)
def test_refuses_what_it_does_not_know(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_settings(write(tmp_path, text))
    assert "sccg.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other\.toml: no such settings file"):
        read_settings(tmp_path / "other.toml")


@pytest.mark.parametrize(("kind", "ct"), [("png", "display"), ("dicom", "hu"), ("nifti", "hu")])
def test_assumptions_are_stated(tmp_path: Path, kind: str, ct: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settings = find_settings(tmp_path, None, kind)
    assert settings == assumed_settings(kind)
    assert settings.assumed
    assert settings.ct.kind == ct
    assert "assumed" in caplog.text
