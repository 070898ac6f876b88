import random
import warnings
from datetime import datetime

import numpy as np
import pytest

from sccg_runtime.dicom.geometry import arrange
from sccg_runtime.dicom.pixels import read_plane
from sccg_runtime.dicom.series import choose_series, find_series
from sccg_runtime.dicom.write import Derivation, derived, write_file
from sccg_runtime.errors import SccgError


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_300_random_mutations_of_a_file_give_a_result_or_one_clear_line(series, make, tmp_path, modality):
    """No damage ends in another kind of error, or in fewer slices than there are files."""
    folder = series(modality, slices=3, size=(16, 16))
    path = folder / "IM002.dcm"
    data, target = path.read_bytes(), tmp_path / "written.dcm"
    contract = make.contract() if modality == "MR" else make.ct2mr()
    derivation = Derivation(
        contract=contract,
        bundle_sha256="0" * 64,
        engine="none",
        layers="fp32 1",
        series_uid="1.2.3",
        frame_of_reference_uid=None,
        started=datetime(2026, 1, 1),
        notes=(),
    )
    chance = random.Random(7)  # noqa: S311
    converted = refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 2, 8))):
            damaged[chance.randrange(128, len(data) - 16 * 16 * 2)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                found, foreign = find_series(folder, modality)
                geometry = arrange(choose_series(found).headers)
                planes = [read_plane(header, modality) for header in geometry.headers]
                for plane in planes:
                    assert plane.values().shape == (16, 16)
                    write_file(target, derived(plane.dataset, np.zeros((16, 16), np.float32), derivation))
                    target.unlink()
        except SccgError as error:
            target.unlink(missing_ok=True)
            refused += 1
            lines = str(error).splitlines()
        else:
            converted += 1
            lines = []
            assert len(planes) + foreign + sum(len(item.headers) for item in found[1:]) >= 3
        assert len(lines) <= 1
    assert converted > 20
    assert refused > 20
