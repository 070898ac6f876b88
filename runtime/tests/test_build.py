"""What the standalone builder does around PyInstaller."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from sccg_runtime.errors import InputError

BUILD = Path(__file__).parents[1] / "standalone" / "build.py"


def test_an_earlier_build_is_replaced_and_nothing_else(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("build", BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def pyinstaller(command, check):
        made = Path(command[command.index("--distpath") + 1], "sccg-runtime", "_internal")
        made.mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pyinstaller)
    for _ in range(2):
        module.build(tmp_path / "built")
        assert [item.name for item in tmp_path.iterdir()] == ["built"]
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="no earlier build"):
        module.build(tmp_path / "other")
