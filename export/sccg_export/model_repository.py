"""A folder that Triton and OpenVINO Model Server serve: ``DIR/NAME/config.pbtxt`` and ``DIR/NAME/1/model.*``.

===============  =====================================================================================
target           what is served, and by what
===============  =====================================================================================
openvino         the bundle's own ``model.xml`` and ``model.bin``, one slice per request. Triton's OpenVINO backend
                 answers a batch that is not full with an error, or pads it and computes all of it.
ort              ``model.onnx`` with a free batch axis and fixed sides, so that Triton's batcher joins slices
===============  =====================================================================================

Only the network is in there. What lies outside of it (intensity, geometry, the checks of sccg-runtime) is told by a
``README.md`` and the ``contract.json`` beside the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx

from sccg_export.graph import INPUT, OUTPUT
from sccg_runtime.bundle import BUNDLE_MODEL_MEMBERS, CONTRACT_MEMBER, Bundle, read_golden
from sccg_runtime.contract import Contract, Target
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import whole_folder
from sccg_runtime.intensity import Intensity
from sccg_runtime.selftest import ROUNDING_DB, worst_psnr_db

CONFIG = "config.pbtxt"
_HINT = "HINT_BF16"


@dataclass(frozen=True, slots=True)
class _Served:
    backend: str
    max_batch_size: int


_SERVED: Mapping[Target, _Served] = MappingProxyType(
    {"openvino": _Served("openvino", 1), "ort": _Served("onnxruntime", 8)}
)


def check_repository(folder: Path, target: str) -> None:
    """Find out before any work what cannot end well.

    Raises
    ------
    InputError
        The target's engine runs in neither server, or ``folder`` is no folder.
    """
    if target not in _SERVED:
        raise InputError(f"a model repository holds targets {' or '.join(_SERVED)}, not {target}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder: a model repository is one")


def add_to_repository(folder: Path, bundle: Bundle) -> Path:
    """Add a bundle's network to a repository, whole or not at all; gives the new version's folder.

    A model that is there already gets the next version number, which is what both servers serve from then on; its
    ``config.pbtxt`` and other versions are left as they are.

    Parameters
    ----------
    folder
        The repository, made if it is not there.
    bundle
        Of target ``openvino`` or ``ort``.

    Raises
    ------
    InputError
        As :func:`check_repository`; or what is there under the model's name has another interface.
    RefusedError
        A batch of slices gives another picture than the slices alone.

    Example
    -------
    >>> add_to_repository(Path("models"), read_bundle(path))
    PosixPath('models/mr2ct-s2d-48x4-ort-int8/1')
    """
    contract = bundle.contract
    check_repository(folder, contract.target)
    files = dict(bundle.members) if contract.target == "openvino" else {"model.onnx": _batched(bundle)}
    name, interface = model_name(contract), _interface(contract)
    model = folder / name
    if not model.exists():
        with whole_folder(model) as staging:
            (staging / CONFIG).write_text(interface + _serving(contract), encoding="utf-8")
            _write_version(staging / "1", files, bundle)
        return model / "1"
    try:
        known = (model / CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise InputError(f"{model} is there and has no {CONFIG}: choose another --model-repository") from None
    if not known.startswith(interface):
        raise InputError(f"{model / CONFIG} describes another interface: choose another --model-repository")
    if (_HINT in known) != _halved(contract):
        raise InputError(f"{model / CONFIG} is for another precision beside int8: choose another --model-repository")
    version = model / str(1 + max((int(path.name) for path in model.iterdir() if path.name.isdecimal()), default=0))
    with whole_folder(version) as staging:
        _write_version(staging, files, bundle)
    return version


def model_name(contract: Contract) -> str:
    """What clients ask the server for: ``mr2ct-s2d-48x4-ort-int8``."""
    return f"{contract.direction}-{contract.student}-{contract.target}-{contract.precision_asked}"


def _write_version(folder: Path, files: Mapping[str, bytes], bundle: Bundle) -> None:
    folder.mkdir(exist_ok=True)
    for name in BUNDLE_MODEL_MEMBERS[bundle.contract.target]:
        (folder / name).write_bytes(files[name])
    (folder / CONTRACT_MEMBER).write_text(bundle.contract.to_json(), encoding="utf-8")
    (folder / "README.md").write_text(_readme(bundle), encoding="utf-8")


def _batched(bundle: Bundle) -> bytes:
    """The ONNX file with a free batch axis and fixed sides, after a batch of the golden slices went through it."""
    import onnxruntime

    model = onnx.load_from_string(bundle.members["model.onnx"])
    for value in (*model.graph.input, *model.graph.output):
        batch, _, *sides = value.type.tensor_type.shape.dim
        batch.dim_param = "batch"
        for side, pixels in zip(sides, bundle.contract.engine_size, strict=True):
            side.dim_value = pixels
    del model.graph.value_info[:]  # shapes of one slice
    data = bytes(model.SerializeToString())
    golden = read_golden(bundle)
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (outputs,) = session.run([OUTPUT], {INPUT: golden.inputs})
    except Exception as error:  # its exceptions share no base class
        raise RefusedError(f"the network takes no batch of slices ({str(error).splitlines()[0][:200]})") from None
    if (found := worst_psnr_db(outputs, golden.engine_outputs)) < ROUNDING_DB:
        raise RefusedError(f"a batch of slices gives another picture than the slices alone ({found:.1f} dB)")
    return data


def _interface(contract: Contract) -> str:
    """The head of ``config.pbtxt``: what clients depend on, so the same in all versions of a model."""
    served = _SERVED[contract.target]
    dims = ", ".join(map(str, (1, *contract.engine_size)))
    tensors = "".join(
        f'{kind} [\n  {{\n    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ {dims} ]\n  }}\n]\n'
        for kind, name in (("input", INPUT), ("output", OUTPUT))
    )
    return (
        f"# input: {_values(contract.input_intensity)}\n# output: {_values(contract.output_intensity)}\n"
        f'# {_scale(contract)}\nname: "{model_name(contract)}"\nbackend: "{served.backend}"\n'
        f'default_model_filename: "{BUNDLE_MODEL_MEMBERS[contract.target][0]}"\n'
        f"max_batch_size: {served.max_batch_size}\n{tensors}"
    )


def _serving(contract: Contract) -> str:
    """What the site may change."""
    text = "instance_group [\n  {\n    count: 1\n    kind: KIND_CPU\n  }\n]\ndynamic_batching {\n}\n"
    if _halved(contract):
        text += f'parameters {{\n  key: "{_HINT}"\n  value {{\n    string_value: "YES"\n  }}\n}}\n'
    return text


def _halved(contract: Contract) -> bool:
    """Whether what is not computed in eight bits was measured in bf16."""
    return contract.target == "openvino" and "bf16" in (contract.precision_ran or {})


def _readme(bundle: Bundle) -> str:
    contract, name = bundle.contract, model_name(bundle.contract)
    shape = f"(slices, 1, {contract.engine_size[0]}, {contract.engine_size[1]})"
    precision = "bf16" if _halved(contract) else "f32"
    triton = "Triton's OpenVINO backend has no setting for it: there, serve an export with `--target ort`."
    if contract.target == "ort":
        triton = (
            "Triton's ONNX Runtime backend needs no such setting. `model.onnx` is the bundle's, its batch axis freed."
        )
    elif precision == "bf16":
        triton = f"Triton's OpenVINO backend is told by `{_HINT}` in `{CONFIG}`. Serve it where the CPU has bfloat16."
    return f"""# {name}

The network of the bundle with SHA-256 {bundle.sha256}, made by {contract.created_by}.
Not a medical device: a synthetic image is computed, not acquired. `contract.json` has the rest, drift included.

| tensor | type | shape | values |
|---|---|---|---|
| `{INPUT}` | float32 | {shape} | [-1, 1]: {_values(contract.input_intensity)} |
| `{OUTPUT}` | float32 | {shape} | [-1, 1]: {_values(contract.output_intensity)} |

Slices per request: at most {_SERVED[contract.target].max_batch_size}.

The client does what `sccg-runtime convert` does around the network, and no server checks it:

- Scale the input as above, and clip it; scale the output back.
- The network {_scale(contract)}. Resample axial slices to that in their plane, and the output back.
- Find out whether the input is what the network was made for. A chest gives a picture, too.

OpenVINO computes in bfloat16 where a processor can, unless it is told otherwise. Drift was measured in {precision}, in
{contract.engine} {contract.engine_version}; the other gives another picture. OpenVINO Model Server is told by

    --model_name {name} --plugin_config '{{"INFERENCE_PRECISION_HINT": "{precision}"}}'

{triton}
"""


def _scale(contract: Contract) -> str:
    rows, columns = contract.trained_size
    spacing = contract.trained_spacing_mm
    pixels = f"{spacing[0]:g} x {spacing[1]:g} mm" if spacing else "a size in mm that is not known"
    return f"learned at {rows} x {columns} pixels of {pixels}"


def _values(intensity: Intensity) -> str:
    """What -1 and +1 mean."""
    if intensity.kind == "percentile":
        return (
            "MR signal, 0 is -1, and one value W of the series is +1: percentile "
            f"{intensity.percentile:g} of what lies above {intensity.foreground_above:g} W is {intensity.level:g} W"
        )
    window = intensity.window_hu
    limits = "black is -1, white is +1" if window is None else f"{window[0]:g} HU is -1, {window[1]:g} HU is +1"
    return f"CT in HU, {limits}" if intensity.kind == "hu" else f"windowed CT, not to be read as HU, {limits}"
