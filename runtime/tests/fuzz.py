"""Damaged DICOM files, folders and zips, or bundles, at random: ``python fuzz.py bundles --cases 20000 --seed 1``.

Each case is one run of the command line. It must end within 5 s with exit code 0, 2 or 3, say why in one line, write
nothing but its output folder, and never leave out an image without a word. A case that does not is printed with its
number; ``--only NUMBER`` runs it again, ``--first NUMBER`` goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import io
import json
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_S = 5.0
ATTEMPTS = 3
STARTS_S: list[float] = []
SLICES = 3
PROGRESS = 500
SIZE = (32, 32)


def helpers() -> Any:
    """The makers of synthetic images and bundles that the tests use."""
    spec = importlib.util.spec_from_file_location("sccg_runtime_conftest", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Seeds:
    """Sound inputs to damage: per kind, the files of a folder; and one bundle per direction."""

    def __init__(self, make: Any, folder: Path) -> None:
        from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

        self.kinds: list[tuple[str, str, dict[str, bytes]]] = []
        stack = np.stack([np.rint(make.head(*SIZE, seed=index) * 1500).astype(np.uint16) for index in range(SLICES)])
        for modality in ("MR", "CT"):
            for syntax in (None, RLELossless, JPEG2000Lossless, JPEGLSLossless):
                files = {}
                for index, stored in enumerate(stack):
                    made = make.dataset(modality, index, stored)
                    if syntax is not None:
                        made.compress(syntax, generate_instance_uid=False)
                    files[f"IM{index}.dcm"] = make.save(made, folder / "seed.dcm").read_bytes()
                self.kinds.append((f"{modality} {syntax.keyword if syntax else 'plain'}", modality, files))
            data = make.save(make.enhanced(modality, stack), folder / "seed.dcm").read_bytes()
            self.kinds.append((f"{modality} enhanced", modality, {"multi.dcm": data}))
        self.bundles = {}
        for modality, contract in (("MR", make.contract), ("CT", make.ct2mr)):
            described = contract(trained_size=SIZE, engine_size=SIZE)
            path = folder / f"{modality}.sccg"
            make.pack(path, described, make.members_for(folder, described))
            self.bundles[modality] = path


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One file with bytes changed, cut out, put in, repeated, zeroed or cut off."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if not made:
            break
        where, length = chance.randrange(len(made)), chance.choice((1, 2, 4, 16, 64, 512))
        match chance.randrange(7):
            case 0 | 1:
                made[where] = chance.randrange(256)
            case 2:
                made[where : where + 1] = bytes([made[where] ^ (1 << chance.randrange(8))])
            case 3:
                del made[where : where + length]
            case 4:
                made[where:where] = chance.randbytes(length)
            case 5:
                made[where : where + 4] = chance.choice(
                    (bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80")
                )
            case _:
                del made[where:]
    return bytes(made)


def damaged_folder(files: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """A folder with one file damaged, or with files missing, twice, swapped, foreign or empty."""
    made = dict(files)
    name = chance.choice(sorted(made))
    match chance.randrange(10):
        case 0:
            del made[name]
        case 1:
            made["copy.dcm"] = made[name]
        case 2:
            made[chance.choice(("notes.txt", "DICOMDIR", "x.dcm"))] = chance.randbytes(chance.randrange(400))
        case 3:
            made[name] = b""
        case _:
            made[name] = damaged(made[name], chance)
    return made


def images(files: dict[str, bytes]) -> int:
    """Files that say they are DICOM; each must be converted, or be spoken of."""
    return sum(data[128:132] == b"DICM" for data in files.values())


def accounted(result: dict[str, Any], multi_frame: bool) -> int:
    """Images that a result speaks of: converted, or of another series."""
    others = sum(int(count) for text in result["not_converted"] for count in re.findall(r"\((\d+) \S+ images", text))
    return others + (result["slices"] // SLICES if multi_frame and result["slices"] >= SLICES else result["slices"])


class Failure(Exception):  # noqa: N818
    """A promise that was not kept."""


class SlowError(Failure):
    """It took too long; on a busy machine that may be chance, so the case is tried again."""


def run(arguments: list[str]) -> tuple[int, str, str]:
    """The command line in this process; a hang ends the process with a traceback."""
    from sccg_runtime.cli import main
    from sccg_runtime.dicom import decoder

    out, err = io.StringIO(), io.StringIO()
    faulthandler.dump_traceback_later(60 * LIMIT_S, exit=True)
    began, STARTS_S[:] = time.perf_counter(), []
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except BaseException as error:
        raise Failure(f"{type(error).__name__} came through:\n{traceback.format_exc()}") from None
    finally:
        faulthandler.cancel_dump_traceback_later()
    # A decoder that crashed is replaced, and the start of a process on a busy machine is no hang; its silence is.
    elapsed = time.perf_counter() - began - sum(STARTS_S)
    if elapsed > LIMIT_S + (decoder.SILENCE_S if "gave no answer" in err.getvalue() else 0):
        raise SlowError(f"took {elapsed:.1f} s")
    errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    if code not in (0, 2, 3) or "Traceback" in err.getvalue() or "error: unexpected" in err.getvalue():
        raise Failure(f"code {code}: {err.getvalue()}")
    if len(errors) != (code != 0):
        raise Failure(f"code {code} with {len(errors)} error lines: {err.getvalue()}")
    return code, out.getvalue(), err.getvalue()


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def dicom_case(seeds: Seeds, chance: random.Random, folder: Path) -> str:
    """A damaged folder or zip through ``convert``."""
    kind, modality, files = chance.choice(seeds.kinds)
    files = damaged_folder(files, chance)
    source, out = folder / "in", folder / "results" / "out"
    if chance.random() < 0.25:
        source = folder / "in.zip"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are there twice
            with zipfile.ZipFile(source, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
                for name, data in files.items():
                    archive.writestr(chance.choice(("", "../", "/", "a/../../", "C:\\")) + name, data)
        if chance.random() < 0.5:
            source.write_bytes(damaged(source.read_bytes(), chance))
            files = {}  # what a damaged directory hides cannot be counted
    else:
        source.mkdir()
        for name, data in files.items():
            (source / name).write_bytes(data)
    before = snapshot(folder)
    bundle = seeds.bundles[modality]
    arguments = ["convert", str(source), str(out), "--bundle", str(bundle), "--threads", "1", "--json", "-"]
    code, shown, _ = run(arguments)
    after = snapshot(folder)
    changed = {name for name in after if before.get(name) != after[name]} | (set(before) - set(after))
    if any(not name.startswith("results/out/") for name in changed) or (changed and code != 0):
        raise Failure(f"code {code}, and {sorted(changed)} changed")
    if code == 0:
        result = json.loads(shown)
        if len(changed) != result["slices"]:
            raise Failure(f"{result['slices']} slices and {len(changed)} files")
        if files and accounted(result, "enhanced" in kind) < images(files):
            raise Failure(f"{images(files)} images, but {shown}")
    return f"{kind} {'converted' if code == 0 else 'refused'}"


def bundle_case(seeds: Seeds, chance: random.Random, folder: Path) -> str:
    """A damaged bundle through ``info``: refused, or what it was."""
    data = seeds.bundles[chance.choice(("MR", "CT"))].read_bytes()
    name, make_it = chance.choice(BUNDLE_DAMAGE)
    path = folder / "damaged.sccg"
    path.write_bytes(make_it(data, chance))
    before = snapshot(folder)
    code, _, _ = run(["info", str(path)])
    if snapshot(folder) != before:
        raise Failure("files were written")
    if code == 0 and name in MUST_BE_REFUSED:
        raise Failure(f"a bundle with {name} was taken")
    return f"bundle, {name} {'taken' if code == 0 else 'refused'}"


def _rezipped(change: Callable[[list[tuple[str, bytes]], random.Random], None], compression: int = 0) -> Any:
    def made(data: bytes, chance: random.Random) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        change(members, chance)
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are there twice
            with zipfile.ZipFile(stream, "w", compression) as archive:
                for name, content in members:
                    archive.writestr(zipfile.ZipInfo(name), content, compression)
        return stream.getvalue()

    return made


def _path(members: list[tuple[str, bytes]], chance: random.Random) -> None:
    index = chance.randrange(len(members))
    name = chance.choice(("../{}", "/tmp/{}", "a\\{}", "..", "C:{}")).format(members[index][0])  # noqa: S108
    members[index] = (name, members[index][1])


def _order(members: list[tuple[str, bytes]], chance: random.Random) -> None:
    members.append(members.pop(chance.randrange(len(members) - 1)))


def _version(members: list[tuple[str, bytes]], chance: random.Random) -> None:
    for index, (name, content) in enumerate(members):
        if name == "contract.json":
            other = str(chance.choice((0, 2, -1, 1.5, "null", '"1"', 10**30))).encode()
            members[index] = (name, content.replace(b'"format_version": 1', b'"format_version": ' + other))


def _bomb(data: bytes, chance: random.Random) -> bytes:
    """The directory at the end declares sizes of up to 4 GiB."""
    made = bytearray(data)
    place = struct.unpack("<I", made[-6:-2])[0] + 20 + 4 * chance.randrange(2)
    made[place : place + 4] = struct.pack("<I", chance.choice((2**29, 2**31, 2**32 - 1)))
    return bytes(made)


BUNDLE_DAMAGE: tuple[tuple[str, Callable[[bytes, random.Random], bytes]], ...] = (
    ("bytes changed", damaged),
    ("its end cut off", lambda data, chance: data[: chance.randrange(len(data))]),
    ("members in another order", _rezipped(_order)),
    ("a member twice", _rezipped(lambda members, chance: members.append(chance.choice(members)))),
    ("a member missing", _rezipped(lambda members, chance: members.pop(chance.randrange(len(members))) and None)),
    ("a path as name", _rezipped(_path)),
    ("another version", _rezipped(_version)),
    ("a bomb's sizes", _bomb),
    ("a real bomb", _rezipped(lambda members, chance: members.append(("x", bytes(10**7))), zipfile.ZIP_DEFLATED)),
)
MUST_BE_REFUSED = {name for name, _ in BUNDLE_DAMAGE[1:]}
KINDS = {"dicom": dicom_case, "bundles": bundle_case}


def fuzz(kind: str, numbers: Sequence[int], seed: int) -> tuple[Counter[str], list[str]]:
    """Outcomes by kind, and the failures, of the cases with these numbers."""
    from sccg_runtime import convert
    from sccg_runtime.dicom import decoder

    class Timed(decoder._Worker):
        def __init__(self) -> None:
            began = time.perf_counter()
            super().__init__()
            STARTS_S.append(time.perf_counter() - began)

    decoder._Worker = Timed  # type: ignore[misc]
    # A conversion ends its decoder process; starting one for each of many thousand cases would be most of the work.
    convert.close_workers = lambda: None
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sccg-fuzz-") as name:
        root = Path(name)
        (root / "seeds").mkdir()
        seeds = Seeds(helpers(), root / "seeds")
        kept = snapshot(root / "seeds")
        for done, number in enumerate(numbers, 1):
            chance = random.Random(f"{seed} {number}")  # noqa: S311
            folder = root / "case"
            folder.mkdir()
            state = chance.getstate()
            try:
                for attempt in range(ATTEMPTS):
                    try:
                        outcomes[KINDS[kind](seeds, chance, folder)] += 1
                        break
                    except SlowError:
                        if attempt == ATTEMPTS - 1:
                            raise
                        shutil.rmtree(folder)
                        folder.mkdir()
                        chance.setstate(state)
                if {path.name for path in root.iterdir()} != {"seeds", "case"} or snapshot(root / "seeds") != kept:
                    raise Failure("something outside of the case's folder was written")
            except Failure as failure:
                failures.append(f"case {number}: {failure}")
            shutil.rmtree(folder)
            if done % PROGRESS == 0:
                sys.stderr.write(f"{done} of {len(numbers)} cases, next is {number + 1}; {len(failures)} failures\n")
                sys.stderr.flush()
    return outcomes, failures


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--cases", type=int, default=20_000, help="number of the last case, plus one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to go on from")
    parser.add_argument("--only", type=int, help="number of one case to run again")
    options = parser.parse_args()
    numbers = range(options.first, options.cases) if options.only is None else [options.only]
    outcomes, failures = fuzz(options.kind, numbers, options.seed)
    for outcome, count in sorted(outcomes.items()):
        sys.stdout.write(f"{count:6d}  {outcome}\n")
    for failure in failures[:20]:
        sys.stdout.write(f"FAILED {failure}\n")
    sys.stdout.write(f"{sum(outcomes.values())} cases kept every promise, {len(failures)} did not\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
