"""The table of targets: what was exported, timed and refused, and what the docs say of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest
from command_line import Lab

from sccg_compress import target_figures
from sccg_compress.target_figures import DOCS, RESULTS, filled, main
from sccg_export.requirements import REQUIREMENTS
from sccg_runtime.errors import InputError

EMPTY = "before\n<!-- targets -->\nold\n<!-- end of targets -->\nafter\n"


def test_each_precision_is_exported_timed_and_shown(
    lab: Lab, brief: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = MappingProxyType({name: REQUIREMENTS[name] for name in ("ort", "tensorrt")})
    monkeypatch.setattr("sccg_export.requirements.REQUIREMENTS", chosen)
    monkeypatch.setattr("sccg_export.requirements.nvidia_driver", lambda: None)
    monkeypatch.setattr(target_figures, "SIZE", (64, 64))
    docs, results = tmp_path / "docs.md", tmp_path / "targets.json"
    docs.write_text(EMPTY)
    main([lab.run], lab.phantom, results=results, docs=docs, table=False)
    rows = json.loads(results.read_text())["rows"]
    assert [(row["target"], row["precision"]) for row in rows] == [
        (target, precision) for target, needed in chosen.items() for precision in needed.precisions
    ]
    fp32 = rows[0]
    assert fp32["engine_to_fp32_psnr_db"] >= fp32["worst_psnr_db"] > 80
    assert fp32["p50_ms"] > 0
    assert fp32["build_seconds"] > 0
    assert all("tensorrt-rtx builds without one" in row["refused"] for row in rows if row["target"] == "tensorrt")
    assert str(tmp_path) not in results.read_text()
    text = docs.read_text()
    assert text.startswith("before\n<!-- targets -->\n| model |")
    assert text.endswith("<!-- end of targets -->\nafter\n")
    assert f"| {fp32['model']} | ort | fp32 | {fp32['build_seconds']:.1f} s |" in text
    assert text.count("not exported") == 2


def test_the_docs_table_is_that_of_the_committed_results() -> None:
    root = Path(__file__).parents[2]
    text = (root / DOCS).read_text(encoding="utf-8")
    assert filled(text, root / RESULTS) == text


def test_models_and_data_are_needed() -> None:
    with pytest.raises(InputError, match=r"MODEL\.\.\. and --data DIR"):
        main(table=False)
