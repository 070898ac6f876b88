"""Run folders, and ``runs/latest``: a text file that names the newest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sccg_compress.runs import alone, begun, latest_run, mark_latest, resumable, root_of, run_folder
from sccg_runtime.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_below_runs_is_named_so_that_the_folder_can_be_moved(here: Path) -> None:
    folder = Path("runs") / "one"
    folder.mkdir(parents=True)
    mark_latest(folder)
    assert (here / "runs" / "latest").read_text(encoding="utf-8") == "one\n"
    (here / "runs").rename(here / "moved")
    assert latest_run(here / "moved") == here / "moved" / "one"


def test_a_run_made_elsewhere_is_the_newest_too_and_nothing_is_strewn_beside_it(here: Path) -> None:
    earlier = Path("runs") / "one"
    earlier.mkdir(parents=True)
    mark_latest(earlier)
    folder = Path("my student")
    folder.mkdir()
    mark_latest(folder)
    assert latest_run() == here / "my student"
    assert sorted(path.name for path in here.iterdir()) == ["my student", "runs"]


def test_a_run_whose_folder_is_called_by_another_encoding_is_found(here: Path) -> None:
    folder = Path("runs") / os.fsdecode(b"M\xfcller")
    folder.mkdir(parents=True)
    mark_latest(folder)
    assert latest_run() == folder


def test_runs_of_another_folder_keep_their_own_latest(here: Path) -> None:
    folder = here / "demo" / "runs" / "demo"
    folder.mkdir(parents=True)
    mark_latest(folder)
    assert root_of(folder) == here / "demo" / "runs"
    assert latest_run(here / "demo" / "runs") == folder
    assert not (here / "runs").exists()


def test_no_run_and_a_run_that_is_gone_are_told(here: Path) -> None:
    with pytest.raises(InputError, match="no run yet"):
        latest_run()
    folder = here / "gone"
    folder.mkdir()
    mark_latest(folder)
    folder.rmdir()
    with pytest.raises(InputError, match="no run folder"):
        latest_run()


def test_run_folders_are_new_and_say_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "20260101-120000")
    made = [run_folder(tmp_path / "runs", "balanced", "mr2ct").name for _ in range(3)]
    assert made == [f"20260101-120000-balanced-mr2ct{suffix}" for suffix in ("", "-1", "-2")]


def test_a_folder_where_a_run_was_killed_at_its_first_write_is_free(here: Path) -> None:
    config = ("config.json", "{}")
    (here / ".config-x1y2.json").write_text("{", encoding="utf-8")
    with begun(here, "run", "mr2ct", config) as folder:
        assert (folder / "config.json").read_text(encoding="utf-8") == "{}"
    with pytest.raises(InputError, match="exists already"), begun(here, "run", "mr2ct", config):
        pytest.fail("entered")


def test_a_folder_is_for_one_process_at_a_time_and_nothing_of_that_stays(here: Path) -> None:
    for _ in range(2):
        with alone(here):
            with pytest.raises(InputError, match="another process is at work"), alone(here):
                pass
            assert list(here.iterdir()) != []
        assert list(here.iterdir()) == []


def test_a_run_that_another_process_trains_is_not_trained_twice(here: Path) -> None:
    with alone(here), pytest.raises(InputError, match="another process"), resumable("distill", here):
        pytest.fail("entered")
    with resumable("distill", here):
        assert list(here.iterdir()) != []
