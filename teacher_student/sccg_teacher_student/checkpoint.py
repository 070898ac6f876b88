"""Reads generator checkpoints without ever running code from them, and writes this project's own.

Accepted: ``latest_net_G*.pth`` of the CycleGAN repository (plain state dict, ``module.`` prefixes, nested under a
key, instance norm with or without affine parameters and running statistics, dropout), this project's
``.safetensors`` and its training checkpoints. The spec is read off the tensors' shapes.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sccg_runtime.direction import Direction, parse_direction
from sccg_runtime.errors import CheckpointError, InputError, one_line
from sccg_runtime.files import sha256, write_bytes
from sccg_teacher_student.cyclegan import check_dense, read_cyclegan
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.patchgan import PatchDiscriminator
from sccg_teacher_student.networks.spec import GeneratorSpec
from sccg_teacher_student.record import TrainingRecord

METADATA_KEY = "sccg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A generator read from a file.

    Attributes
    ----------
    generator
        In evaluation mode, float32, on the CPU, without gradients; takes (N, 1, H, W).
    spec
        What rebuilds it.
    path, sha256
        The file and its hash.
    record
        What it learned from, or None (a CycleGAN file does not say).
    notes
        What was changed or assumed on the way in, one sentence each; commands print them.
    """

    generator: nn.Module
    spec: GeneratorSpec
    path: Path
    sha256: str
    record: TrainingRecord | None
    notes: tuple[str, ...]

    @property
    def direction(self) -> Direction | None:
        """What the record says, else the file's name, or None."""
        if self.record is not None:
            return self.record.direction
        found = set(re.findall(r"mr2ct|ct2mr", self.path.name.lower()))
        return parse_direction(found.pop()) if len(found) == 1 else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a generator.

    Raises
    ------
    CheckpointError
        Missing, damaged, holds code, or is not a generator that this project knows; one line says which.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        spec, state, record, notes = _read_safetensors(path)
    else:
        spec, state, record, notes = _read_pickle(path)
    with torch.device("meta"):  # shapes first: a wrong file must not cost the memory of a network that it only names
        check_fit(build_generator(spec), state, path.name)
    generator = build_generator(spec)
    load_state(generator, state, path.name)
    generator.eval().requires_grad_(False)
    return Checkpoint(generator=generator, spec=spec, path=path, sha256=sha256(path), record=record, notes=tuple(notes))


def save_checkpoint(path: Path, generator: nn.Module, spec: GeneratorSpec, record: TrainingRecord) -> None:
    """Write ``.safetensors``: float32 weights, with spec and record as JSON in its metadata; whole or not at all."""
    metadata = {METADATA_KEY: json.dumps({"spec": spec.to_dict(), "record": record.to_dict()}, allow_nan=False)}
    save_network(path, generator, metadata)


def save_network(path: Path, network: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Write any network's weights as ``.safetensors``, float32; whole or not at all."""
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(path, safetensors.torch.save(state, metadata))


def save_tensors(path: Path, content: Any) -> None:
    """``torch.save``, whole or not at all.

    Serialised in memory first: on a full disk PyTorch's own writer fails with a RuntimeError that does not say so.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_discriminator(path: Path) -> PatchDiscriminator:
    """A discriminator as ``train`` leaves it, or the CycleGAN repository's ``latest_net_D*.pth`` with batch norm.

    Raises
    ------
    CheckpointError
        Missing, damaged, holds code, or is another network.
    """
    state = {key.removeprefix("module."): value for key, value in load_tensors(path).items()}
    discriminator = PatchDiscriminator()
    load_state(discriminator, state, path.name)
    return discriminator


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A plain state dict from ``.safetensors`` or from a PyTorch file, without running anything in it.

    Raises
    ------
    CheckpointError
        Missing, damaged, holds code, or is not a dictionary of tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}")
    if path.suffix == ".safetensors":
        return _safetensors(path)[0]
    content = load_tensors_only(path)
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"{path.name} is not a plain state dict")
    return content


def load_state(generator: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Copy weights in; refuse what does not fit (CheckpointError)."""
    check_fit(generator, state, name)
    for key, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise CheckpointError(f"{name}: {key} holds values that are not finite")
    generator.load_state_dict(dict(state), strict=False)


def check_fit(generator: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are not this network's, with the names, shapes and types that differ (CheckpointError)."""
    wanted = generator.state_dict()
    for key, value in state.items():
        check_dense(value, f"{name}: {key}")
    wrong = [f"{key} missing" for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    wrong += [f"{key} unknown" for key in state if key not in wanted]
    wrong += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    wrong += [
        f"{key} is {str(state[key].dtype).removeprefix('torch.')}, not floating point"
        for key, tensor in wanted.items()
        if key in state and tensor.is_floating_point() and not state[key].is_floating_point()
    ]
    if wrong:
        more = f" and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise CheckpointError(f"{name} does not fit its network: {'; '.join(wrong[:6])}{more}")


_PICKLE, _ZIP = b"\x80", b"PK\x03\x04"  # how files of torch.save begin, old and new
_Parts = tuple[GeneratorSpec, dict[str, Tensor], TrainingRecord | None, list[str]]


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is a damaged safetensors file: {one_line(error)}") from None


def _read_safetensors(path: Path) -> _Parts:
    state, metadata = _safetensors(path)
    if METADATA_KEY not in metadata:
        spec, state, notes = read_cyclegan(state, path.name)
        return spec, state, None, notes
    try:
        values = json.loads(metadata[METADATA_KEY])
        return GeneratorSpec.from_dict(values["spec"]), state, TrainingRecord.from_dict(values["record"]), []
    except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: metadata cannot be read: {one_line(error)}") from None


def _read_pickle(path: Path) -> _Parts:
    content = load_tensors_only(path)
    if isinstance(content, Mapping) and content.get("schema") == "sccg-run/1":
        try:
            spec = GeneratorSpec.from_dict(json.loads(content["spec"]))
            record = TrainingRecord.from_dict(json.loads(content["record"]))
            average = _of_direction(dict(content["average"]), record.direction)
        except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{path.name} is a training checkpoint that does not say its network: {one_line(error)}"
            ) from None
        return spec, average, record, ["training checkpoint: its averaged weights are used"]
    spec, state, notes = read_cyclegan(content, path.name)
    return spec, state, None, notes


def _of_direction(average: dict[str, Tensor], direction: Direction) -> dict[str, Tensor]:
    """The weights of one direction where a teacher's training keeps them by direction; else all, as they are."""
    prefix = f"{direction}."
    own = {key.removeprefix(prefix): value for key, value in average.items() if key.startswith(prefix)}
    return own or average


def load_tensors_only(path: Path) -> Any:
    """``torch.load`` restricted to tensors and plain containers; nothing in the file is executed.

    Raises
    ------
    CheckpointError
        Truncated, not a PyTorch file, or a pickle that wants to run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            begins = file.read(4)
        if begins[:1] != _PICKLE and begins != _ZIP:
            raise CheckpointError(
                f"{path.name} is no PyTorch file; is it text, such as a web page or a pointer of Git LFS?"
            ) from None
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise CheckpointError(
                f"{path.name} holds Python objects or code, not only tensors: refused, nothing of it was run; "
                "save the generator's state_dict() instead"
            ) from None
        raise CheckpointError(f"{path.name} is not a PyTorch checkpoint") from None
    except Exception as error:  # damaged pickles and archives fail in every way there is
        raise CheckpointError(f"{path.name} is truncated or not a PyTorch checkpoint ({one_line(error)})") from None
