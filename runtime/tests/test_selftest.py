import numpy as np
import pytest

from sccg_runtime.bundle import read_bundle
from sccg_runtime.errors import RefusedError
from sccg_runtime.selftest import worst_psnr_db


def test_a_machine_that_agrees_passes(bundle_file):
    result = read_bundle(bundle_file()).selftest()
    assert result.passed
    assert result.slices == 2
    assert result.to_engine_db > 90
    assert result.to_fp32_db > 90
    result.require()


def test_psnr_is_that_of_the_u8_scale():
    reference = np.zeros((2, 1, 8, 8), np.float32)
    output = reference.copy()
    output[1] += 2 / 255  # one grey level of 255
    assert worst_psnr_db(output, reference) == pytest.approx(20 * np.log10(255), abs=1e-4)
    assert worst_psnr_db(reference, reference) == 100


def test_another_answer_than_the_exported_engine_is_refused(bundle_file):
    result = read_bundle(bundle_file(error=0.05)).selftest()  # 6.4 grey levels: 32 dB
    assert result.to_engine_db == pytest.approx(32.0, abs=0.5)
    assert not result.passed
    with pytest.raises(RefusedError, match=r"32\.\d dB to the exported engine"):
        result.require()


def test_a_machine_that_is_further_from_fp32_than_the_exporter_is_refused(bundle_file, make, tmp_path):
    """The exported engine lay 60 dB or more from FP32; this machine agrees with it to 42 dB only."""
    result = read_bundle(bundle_file(error=0.015)).selftest()
    assert result.to_engine_db > 40
    assert result.passed  # here the exported engine was as far from FP32 as from this machine

    contract = make.contract()
    members = make.members_for(tmp_path, contract)
    inputs = np.random.default_rng(1).uniform(-0.9, 0.9, (1, 1, 64, 64)).astype(np.float32)
    shifted = inputs + np.float32(0.015)
    np.savez(tmp_path / "golden.npz", inputs=inputs, fp32_outputs=shifted, engine_outputs=shifted)
    members["golden.npz"] = (tmp_path / "golden.npz").read_bytes()
    result = read_bundle(make.pack(tmp_path / "drifted.sccg", contract, members)).selftest()
    assert result.to_engine_db > 40
    assert result.stored_to_fp32_db == 100
    assert not result.passed
