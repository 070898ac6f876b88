"""Reads the generator spec off the tensors of a pytorch-CycleGAN-and-pix2pix file.

Their names are ``model.N.weight`` and ``model.N.conv_block.M.weight``, where N counts every layer, those without
parameters included; so the numbers tell the padding and the dropout, and the shapes tell the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sccg_runtime.errors import CheckpointError, InputError
from sccg_teacher_student.networks.spec import GeneratorSpec, Norm, Padding

_NORM_PARTS = ("running_mean", "running_var", "num_batches_tracked")


def read_cyclegan(content: Any, name: str) -> tuple[GeneratorSpec, dict[str, Tensor], list[str]]:
    """(spec, state dict with this project's names, notes) of a CycleGAN generator.

    Raises
    ------
    CheckpointError
        It is not one; the message says what it looks like instead.
    """
    state, notes = _unwrap(content, name)
    _refuse_others(state, name)
    unknown = [key for key in state if not re.fullmatch(r"model\.\d+\.(conv_block\.\d+\.)?\w+", key)]
    if unknown:
        raise CheckpointError(f"{name} has no CycleGAN generator layout: {', '.join(unknown[:4])}")
    convs = {key: tensor for key, tensor in state.items() if key.endswith(".weight") and tensor.ndim == 4}
    outer = {
        int(key.split(".")[1]): tensor for key, tensor in convs.items() if re.fullmatch(r"model\.\d+\.weight", key)
    }
    inner = sorted({int(key.split(".")[1]) for key in convs if ".conv_block." in key})
    if len(outer) < 2:
        raise CheckpointError(f"{name} has no CycleGAN generator layout: {', '.join(sorted(state)[:4])}")
    first, last = min(outer), max(outer)
    steps = len(outer) - 2
    if outer[first].shape[2:] != (7, 7) or outer[last].shape[2:] != (7, 7) or steps % 2:
        raise CheckpointError(f"{name}: first and last convolution must be 7x7 with paired down- and up-samplings")
    places, padding, dropout = _block_layout(convs, inner, name)
    norm, running = _norm_kind(state, first)
    if running:
        notes.append("instance norm's running statistics are not used: it normalises each slice by itself")
    if dropout:
        notes.append("dropout layers are inactive")
    in_channels, out_channels = outer[first].shape[1], outer[last].shape[0]
    try:
        spec = GeneratorSpec(
            family="resnet",
            width=outer[first].shape[0],
            blocks=len(inner),
            norm=norm,
            padding=padding,
            in_channels=1,
            out_channels=out_channels,
            downsamples=steps // 2,
        )
    except InputError as error:
        raise CheckpointError(f"{name}: {error}") from None
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if running and parts[-1] in _NORM_PARTS:
            continue
        if len(parts) > 3:
            if int(parts[3]) not in places:
                raise CheckpointError(f"{name}: {key} has no place in a residual block that is known")
            parts[3] = str(places[int(parts[3])])
        renamed[".".join(parts)] = tensor
    if in_channels > 1:
        stem = f"model.{first}.weight"
        renamed[stem] = renamed[stem].sum(dim=1, keepdim=True)
        notes.append(f"{in_channels} input channels: grey goes into each, folded exactly into the first convolution")
    if out_channels > 1:
        notes.append(f"{out_channels} output channels are averaged")
    return spec, renamed, notes


def _unwrap(content: Any, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """Find the state dict: at the top, or one level down; strip ``module.`` and wrapper names."""
    notes: list[str] = []
    if isinstance(content, Mapping) and {"state", "param_groups"} <= set(content):
        raise CheckpointError(f"{name} is an optimiser state, not a generator")
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{name} holds a {type(content).__name__}, not a state dict")
    found: Mapping[str, Any] = content
    if not any(isinstance(value, Tensor) for value in content.values()):
        nested = {
            str(key): value
            for key, value in content.items()
            if isinstance(value, Mapping) and any(isinstance(item, Tensor) for item in value.values())
        }
        if not nested:
            raise CheckpointError(f"{name} holds no tensors (keys: {', '.join(map(str, list(content)[:6]))})")
        generators = [key for key in nested if re.search(r"state_dict|model|gen|^(net)?_?g", key, re.IGNORECASE)]
        if len(nested) > 1 and len(generators) != 1:
            raise CheckpointError(f"{name} holds several networks ({', '.join(nested)}): save the generator alone")
        key = generators[0] if len(generators) == 1 else next(iter(nested))
        found = nested[key]
        notes.append(f"weights taken from the key {key!r}")
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        check_dense(value, f"{name}: {key}")
        state[re.sub(r"^(module\.|netG\.|generator\.)+", "", str(key))] = value
    return state, notes


def check_dense(value: Any, name: str) -> None:
    """Refuse all but tensors whose numbers are all there: what is sparse, or of shapes alone (CheckpointError)."""
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{name} is a {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.is_meta:
        raise CheckpointError(f"{name} is {'without numbers' if value.is_meta else 'sparse'}, not a dense tensor")


def _refuse_others(state: Mapping[str, Tensor], name: str) -> None:
    if any(tensor.ndim == 4 and tensor.shape[2:] == (4, 4) for tensor in state.values()):
        what = "a U-Net generator" if any(".model." in key for key in state) else "a PatchGAN discriminator"
        raise CheckpointError(f"{name} looks like {what} (4x4 convolutions), not a ResNet generator")
    if any(key.endswith(".filt") for key in state):
        raise CheckpointError(f"{name} is an anti-aliased generator (CUT): its blur layers are not supported")


def _block_layout(convs: Mapping[str, Tensor], inner: list[int], name: str) -> tuple[dict[int, int], Padding, bool]:
    """(their layer number in a block -> ours, padding, has dropout), from the places of a block's two convolutions."""
    known: dict[tuple[int, ...], tuple[dict[int, int], Padding, bool]] = {
        (1, 5): ({1: 1, 2: 2, 5: 5, 6: 6}, "reflect", False),
        (1, 6): ({1: 1, 2: 2, 6: 5, 7: 6}, "reflect", True),
        (0, 3): ({0: 1, 1: 2, 3: 5, 4: 6}, "zeros", False),
        (0, 4): ({0: 1, 1: 2, 4: 5, 5: 6}, "zeros", True),
    }
    if not inner:
        return known[1, 5]
    layouts = {
        tuple(sorted(int(key.split(".")[3]) for key in convs if key.startswith(f"model.{block}.conv_block.")))
        for block in inner
    }
    layout = layouts.pop()
    if layouts or layout not in known:
        raise CheckpointError(f"{name}: residual blocks of this layout are not known")
    return known[layout]


def _norm_kind(state: Mapping[str, Tensor], first: int) -> tuple[Norm, bool]:
    """(norm, instance norm with running statistics). The repository's batch-norm networks have no conv bias there."""
    after = f"model.{first + 1}."
    affine, running = f"{after}weight" in state, f"{after}running_mean" in state
    if not affine and not running:
        return "instance", False
    if affine and running and f"model.{first}.bias" not in state:
        return "batch", False
    return ("instance-affine" if affine else "instance"), running
