"""docs/cli.md is what --help prints, on any terminal, and a page that differs is noticed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sccg_compress.pages import cli
from sccg_compress.pages.cli import PAGE, main, page, verbs_of


@pytest.fixture(autouse=True)
def one_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one of the two programs that answers faster; in an empty folder."""
    monkeypatch.setattr(cli, "PROGRAMS", {"sccg-runtime": "sccg_runtime"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cli"])


def test_verbs_are_found_in_the_help_of_both_programs() -> None:
    click = "Usage: it\n\nCommands:\n  fly-high  Leave the ground, and\n            come back.\n  swim      Float.\n"
    argparse = "usage: it\n\ncommands:\n  COMMAND\n    fly     leave the ground\n    swim    float\n\nexit codes: 0\n"
    assert verbs_of(click) == ["fly-high", "swim"]
    assert verbs_of(argparse) == ["fly", "swim"]
    assert verbs_of("Usage: it\n\nOptions:\n  --help  Commands:\n") == []


def test_every_verb_and_option_is_there() -> None:
    text = page()
    for verb in ("convert", "info", "selftest"):
        assert f"\n### sccg-runtime {verb}\n\n```\nusage: sccg-runtime {verb} [-h]" in text
    for option in ("--require-signature PUBKEY", "--allow-gaps", "--json [FILE]"):
        assert option in text


def test_the_page_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = page()
    for name, value in (("COLUMNS", "200"), ("FORCE_COLOR", "1"), ("TERM", "xterm-256color"), ("LC_ALL", "C")):
        monkeypatch.setenv(name, value)
    assert page() == before


def test_check_fails_until_the_page_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as checking:
        checking.setattr(sys, "argv", ["cli", "--check"])
        for _ in range(2):  # there is none; there is an old one
            with pytest.raises(SystemExit, match=r"cli\.md is not up to date: run `make docs`"):
                main()
            PAGE.parent.mkdir(exist_ok=True)
            PAGE.write_text("old\n", encoding="utf-8")
    main()
    assert PAGE.read_text(encoding="utf-8") == page()
    monkeypatch.setattr(sys, "argv", ["cli", "--check"])
    main()
