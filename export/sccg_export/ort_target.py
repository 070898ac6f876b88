"""Target ``ort``: ONNX Runtime on the CPU, FP32, or INT8 as QDQ (unsigned activations, signed per-channel weights)."""

from __future__ import annotations

from sccg_export.built import Built
from sccg_export.calibration import Calibration, needed
from sccg_export.graph import Graph
from sccg_export.requirements import REQUIREMENTS, Quantizer, quantizer_version
from sccg_export.unsigned_qdq import integer_convolutions, layers, quantise
from sccg_runtime.contract import Precision


def build(
    graph: Graph,
    precision: Precision,
    size: tuple[int, int],
    calibration: Calibration | None,
    *,
    keep_float: tuple[str, ...] = (),
    saturation_safe: bool = False,
    quantizer: Quantizer = REQUIREMENTS["ort"].quantizers[0],
) -> Built:
    """Make ``model.onnx``; its height and width stay free, so ``size`` only names the contract's engine size.

    See :class:`sccg_export.targets.TargetModule`.

    Raises
    ------
    InputError
        INT8 without calibration slices, or an unknown name in ``keep_float``.
    """
    import onnxruntime

    model = graph.model
    if precision == "int8":
        model = quantise(graph, needed(calibration), keep_float, quantizer=quantizer, saturation_safe=saturation_safe)
    quantised, left, sums = layers(model)
    integer = len(integer_convolutions(model))
    counts = {"fp32": len(left) + len(quantised) - integer, "int8": integer}
    return Built(
        members={"model.onnx": bytes(model.SerializeToString())},
        engine="ONNX Runtime",
        engine_version=str(onnxruntime.__version__),
        precision_ran={name: count for name, count in counts.items() if count},
        float_layers=tuple(left) if precision == "int8" else (),
        int8_layers=(*quantised, *sums),
        quantizer=quantizer_version(quantizer) if precision == "int8" else "",
    )
