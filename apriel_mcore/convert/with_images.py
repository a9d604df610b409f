"""A trained decoder and the multimodal folder that it came from become a whole model again.

    each file of LIKE: its header; decoder tensors out of DECODER, all others as they are
      --written, read back, digests compared--> the same file in DST

DST has LIKE's files, names and order; config, tokenizer and image processor are LIKE's.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec
from torch import Tensor

from apriel_mcore.bridge.names import HF_EMBEDDING
from apriel_mcore.bridge.reshard import tensor_files
from apriel_mcore.bridge.tensorfile import Stored
from apriel_mcore.convert import companions
from apriel_mcore.convert.digest import digest, digest_in_file
from apriel_mcore.convert.hf_folder import HfFolder, Located, located_in
from apriel_mcore.convert.hf_writer import GrowingFile
from apriel_mcore.convert.journal import Finished
from apriel_mcore.convert.mapped import mapped
from apriel_mcore.convert.report import REPORT_FILE, Job, Parity, Report, TensorRecord
from apriel_mcore.convert.results import HfResult, digests_in
from apriel_mcore.convert.scratch import is_finite
from apriel_mcore.convert.workplace import Workplace, check_room, finished_report, workplace
from apriel_mcore.errors import BridgeError, InputError

_SUFFIXES = (".json", ".jinja", ".txt", ".model")


def convert(decoder: Path, like: Path, target: Path) -> Report:
    """Write `target`, or go on where an interrupted call stopped; the report that lies in it.

    InputError where the two are not the same decoder in the same dtype, with nothing left behind.
    """
    trained, whole = HfFolder.open(decoder), HfFolder.open(like)
    _check_same(trained, whole)
    fingerprint = f"{trained.fingerprint} {whole.fingerprint}"
    options = {"like": str(like), "companions": companions.digest_of(_companions(like))}
    job = Job.of("with-images", decoder, fingerprint=fingerprint, options=options)
    parity = Parity(status="skipped", reason="decoder and images are those of their folders, by digest")
    origins = _origins(trained, whole)

    def source() -> dict[str, str]:
        return digests_in({name: at for (_, name), at in origins.items()})

    done = finished_report(HfResult(target), job, source=source, compare=lambda: parity)
    if done is not None:
        return done
    files = tensor_files(like)
    check_room(target, sum(path.stat().st_size for path in files))
    with workplace(target, job) as place:
        join = _Join(trained, origins, place)
        parts = [join.finish(path) for path in files]
        for path in _companions(like):
            shutil.copyfile(path, place.folder / path.name)
        return place.write_report(HfResult(place.folder), parts, parity=parity, dropped=())


class _Join:
    """Writes one file of the whole model at a time."""

    def __init__(
        self, trained: HfFolder, origins: Mapping[tuple[str, str], Located], place: Workplace
    ) -> None:
        self._origins = origins
        self._place = place
        self._recorded = {
            (at.path, at.stored_name): trained.recorded[name]
            for name, at in trained.tensors.items()
            if name in trained.recorded
        }

    def finish(self, path: Path) -> Finished:
        """The file that takes the place of `path`, written and read back, or found so."""
        journal = self._place.journal
        return journal.part(path.name, partial(self._is_intact, path), partial(self._write, path))

    def _is_intact(self, path: Path, part: Finished) -> bool:
        target = self._place.folder / path.name
        if not target.is_file() or target.stat().st_size != path.stat().st_size:
            return False
        held = located_in(path)
        if _opening(target, held) != _opening(path, held):
            return False
        return all(
            _digest_at(target, record.name, held[record.name]) == record.digest_after
            and self._origins[path.name, record.name].digest() == record.digest_before
            for record in part.tensors
        )

    def _write(self, path: Path) -> Finished:
        target = self._place.folder / path.name
        held = located_in(path)
        with target.open("wb") as stream:
            stream.write(_opening(path, held))
            stream.flush()
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            records = tuple(self._copy(path, GrowingFile(target), held))
            os.fsync(stream.fileno())
        return Finished(part=path.name, tensors=records)

    def _copy(self, path: Path, target: GrowingFile, held: dict[str, Stored]) -> Iterator[TensorRecord]:
        """Each tensor of one file, into its place and read back."""
        for name, stored in held.items():
            began = time.monotonic()
            tensor = self._take(self._origins[path.name, name])
            target.put(stored.start, tensor)
            before, after = digest(tensor), _digest_at(target.path, name, stored)
            if after != before:
                raise BridgeError(f"{target.path}: {name} was read back different from what was written")
            yield TensorRecord(
                name=name,
                sizes=stored.sizes,
                dtype_before=stored.dtype,
                dtype_after=stored.dtype,
                digest_before=before,
                digest_after=after,
                num_bytes=stored.num_bytes,
                file=path.name,
                seconds=time.monotonic() - began,
            )

    def _take(self, at: Located) -> Tensor:
        """A tensor's elements; InputError when they are not finite, or the decoder's are not those that its
        conversion wrote."""
        tensor = mapped(at.path, at.stored.start, at.stored.sizes, at.stored.dtype, what=at.stored_name)
        if not is_finite(tensor):
            raise InputError(f"{at.path}: {at.stored_name} holds NaN or infinite values")
        recorded = self._recorded.get((at.path, at.stored_name))
        if recorded and recorded != (at.stored.dtype, digest(tensor)):
            raise InputError(f"{at.path}: {at.stored_name} is not what its conversion.json says")
        return tensor


def _origins(trained: HfFolder, whole: HfFolder) -> dict[tuple[str, str], Located]:
    """By file and name in the whole model: where each of its tensors comes from."""
    plain = {at.stored_name: name for name, at in whole.tensors.items()}
    if whole.tied_head is not None:
        plain[whole.tied_head.stored_name] = HF_EMBEDDING
    return {
        (path.name, name): trained.tensors[plain[name]]
        if name in plain
        else Located(path=path, stored_name=name, stored=stored)
        for path in tensor_files(whole.path)
        for name, stored in located_in(path).items()
    }


def _opening(path: Path, held: Mapping[str, Stored]) -> bytes:
    """The header of a file that has the tensors `held`."""
    with path.open("rb") as file:
        return file.read(min(stored.start for stored in held.values()))


def _digest_at(path: Path, name: str, stored: Stored) -> str:
    return digest_in_file(path, stored.start, stored.num_bytes, what=name)


def _check_same(trained: HfFolder, whole: HfFolder) -> None:
    """InputError unless the decoder can take the place of the one in the whole model."""
    if not whole.dropped:
        raise InputError(f"{whole.path}: holds a decoder alone; give the multimodal folder as LIKE")
    ours, theirs = (msgspec.structs.asdict(folder.shape) for folder in (trained, whole))
    differing = [f"{key} {ours[key]} and {theirs[key]}" for key in ours if ours[key] != theirs[key]]
    if differing:
        raise InputError(f"{trained.path} and {whole.path} are not the same decoder: {'; '.join(differing)}")
    for name, at in whole.tensors.items():
        found = trained.tensors[name].stored.dtype
        if found != at.stored.dtype:
            raise InputError(
                f"{trained.path}: {name} is {found}, in {whole.path} {at.stored.dtype}; convert the "
                "checkpoint again with the --dtype of LIKE"
            )


def _companions(like: Path) -> list[Path]:
    """Whatever else describes the model: small files beside the weights."""
    return [
        path
        for path in sorted(like.iterdir())
        if path.is_file() and path.suffix in _SUFFIXES and path.name != REPORT_FILE
    ]
