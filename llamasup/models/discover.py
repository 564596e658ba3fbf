"""Decides which GGUF files in folders are one model, and what the model is called. Pure.

`models.scan` looks for the files; here only their paths decide. A model is called

- `owner/name` if a cache says so: Hugging Face's, or LM Studio's (owner/name/file.gguf);
- else like its file, or like its folder if the file's name says nothing ("model.gguf").

Several models of one repository get their quantization behind a colon. Models that would still
share a name, or have one that is taken already, are called by their paths.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path, PurePosixPath

from attrs import frozen

_QUANTIZATION = (
    r"(?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4)"
)
_QUANTIZED = re.compile(
    rf"(?P<base>.*?)(?:^|[-_.])(?P<quantization>{_QUANTIZATION})", re.IGNORECASE
)
_PART = re.compile(r"(?P<whole>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_MMPROJ = re.compile(r"(?:^|[-_.])mmproj(?=$|[-_.])", re.IGNORECASE)
_SAYS_NOTHING = {"", "model", "ggml-model", "ggml", "gguf"}
_NO_MODELS = re.compile(r"imatrix", re.IGNORECASE)


@frozen
class Found:
    """A file below one of the folders that were looked through."""

    folder: Path
    path: PurePosixPath
    """The path relative to `folder`."""
    size: int
    modified: float = 0.0
    home: tuple[int, int] | None = None
    """The identity of the file's folder, by whatever path that was reached."""
    identity: tuple[int, int] | None = None
    """The file's identity, the same for all links to it."""

    @property
    def file(self) -> Path:
        """The file's whole path."""
        return self.folder / self.path


@frozen
class Discovered:
    """A model: its first file, all its files, and the projector for images or sound, if any."""

    path: Path
    parts: tuple[Path, ...]
    size: int
    mmproj: Path | None = None
    identity: tuple[int, int] | None = None


@frozen
class _Candidate:
    """The files of one model, before it has a name."""

    parts: tuple[Found, ...]
    stem: str

    @property
    def home(self) -> tuple[Path, PurePosixPath]:
        return self.parts[0].folder, self.parts[0].path.parent

    @property
    def base(self) -> str:
        return _split_stem(self.stem)[0]

    @property
    def variant(self) -> str:
        return _split_stem(self.stem)[1] or self.stem


def models_in(files: Iterable[Found], taken: Iterable[str] = ()) -> dict[str, Discovered]:
    """Every model among `files` by its name. A split model with a part missing is left out.

    No name is among those that are `taken`, in upper or lower case.
    """
    models, projectors = _sorted_out(_newest_revisions(files))
    akin = _akin(models)
    names = _told_apart({model: _name(model, akin[model.home]) for model in models}, taken)
    return {
        names[model]: Discovered(
            path=model.parts[0].file,
            parts=tuple(part.file for part in model.parts),
            size=sum(part.size for part in model.parts),
            mmproj=_mmproj(model, akin[model.home], projectors[model.home]),
            identity=model.parts[0].identity,
        )
        for model in models
    }


def parts_of(path: Path) -> tuple[Path, ...]:
    """All files of the model that begins with this one: only itself, unless its name numbers
    parts."""
    part = _PART.fullmatch(path.stem)
    if part is None:
        return (path,)
    numbers = range(1, int(part["count"]) + 1)
    names = (f"{part['whole']}-{n:05}-of-{part['count']}{path.suffix}" for n in numbers)
    return tuple(path.with_name(name) for name in names)


def friendly_names(name: str, path: Path) -> Iterator[str]:
    """Other names that people use for a model: its file's, and that without the quantization."""
    part = _PART.fullmatch(path.stem)
    stem = part["whole"] if part else path.stem
    for called in (stem, _split_stem(stem)[0], _split_stem(name.replace(":", "-"))[0]):
        if called.lower() not in _SAYS_NOTHING:
            yield called


def _newest_revisions(files: Iterable[Found]) -> list[Found]:
    """The files without old revisions, which Hugging Face's cache keeps: these are no new
    models."""
    newest: dict[object, Found] = {}
    for file in sorted(files, key=lambda file: (file.folder, file.path)):
        where = _in_hugging_face(file.path)
        key = (file.folder, *where) if where else (file.folder, file.path)
        if key not in newest or newest[key].modified < file.modified:
            newest[key] = file
    return list(newest.values())


def _in_hugging_face(path: PurePosixPath) -> tuple[str, PurePosixPath] | None:
    """The repository, and the path in it: of models--owner--name/snapshots/revision/path."""
    parts = path.parts
    for at, part in enumerate(parts[:-3]):
        if part.startswith("models--") and parts[at + 1] == "snapshots":
            repository = part.removeprefix("models--").replace("--", "/", 1)
            return repository, PurePosixPath(*parts[at + 3 :])
    return None


Projectors = Mapping[tuple[Path, PurePosixPath], Sequence[Found]]


def _sorted_out(files: Iterable[Found]) -> tuple[list[_Candidate], Projectors]:
    split: dict[tuple[Path, PurePosixPath, str], list[Found]] = defaultdict(list)
    projectors: dict[tuple[Path, PurePosixPath], list[Found]] = defaultdict(list)
    models = []
    for file in files:
        stem = file.path.stem
        if file.path.suffix.lower() != ".gguf" or _NO_MODELS.search(stem):
            continue
        if _MMPROJ.search(stem):
            projectors[file.folder, file.path.parent].append(file)
        elif part := _PART.fullmatch(stem):
            whole = f"{part['whole']}-of-{part['count']}"
            split[file.folder, file.path.parent, whole].append(file)
        else:
            models.append(_Candidate((file,), stem))
    models.extend(_whole(split.values()))
    return sorted(models, key=lambda model: (model.home, model.stem)), projectors


def _whole(split: Iterable[Sequence[Found]]) -> Iterator[_Candidate]:
    for parts in split:
        ordered = sorted(parts, key=lambda part: part.path)
        matches = [_PART.fullmatch(part.path.stem) for part in ordered]
        numbers = [int(match["number"]) for match in matches if match]
        first = matches[0]
        if first and numbers == list(range(1, int(first["count"]) + 1)):
            yield _Candidate(tuple(ordered), first["whole"])


def _split_stem(stem: str) -> tuple[str, str]:
    """A file's name without its quantization, and the quantization."""
    found = _QUANTIZED.fullmatch(stem)
    return (found["base"], found["quantization"].upper()) if found else (stem, "")


def _akin(models: Iterable[_Candidate]) -> Mapping[tuple[Path, PurePosixPath], bool]:
    """The folders that hold only one model, in one or several quantizations, like a repository."""
    bases: dict[tuple[Path, PurePosixPath], set[str]] = defaultdict(set)
    for model in models:
        bases[model.home].add(model.base.casefold())
    return {home: len(of_home) == 1 for home, of_home in bases.items()}


def _name(model: _Candidate, akin: bool) -> str:
    path = model.parts[0].path
    if repository := _in_hugging_face(path):
        return repository[0]
    if len(path.parts) == 3 and akin:
        return "/".join(path.parts[:2])
    if model.base.lower() in _SAYS_NOTHING and path.parent.name:
        return path.parent.name
    return model.stem


def _told_apart(names: Mapping[_Candidate, str], taken: Iterable[str]) -> dict[_Candidate, str]:
    """The names, if they are unique whatever their case; longer names if they are not."""
    others = [name.casefold() for name in taken]
    longer = (
        names,
        {model: _with_variant(model, name) for model, name in names.items()},
        {model: _path_as_name(model) for model in names},
        {model: f"{model.home[0].name}/{_path_as_name(model)}" for model in names},
    )
    chosen: dict[_Candidate, str] = {}
    for attempt in longer:
        uses = Counter(name.casefold() for name in (*attempt.values(), *chosen.values()))
        uses.update(others)
        for model, name in attempt.items():
            if model not in chosen and uses[name.casefold()] == 1:
                chosen[model] = name
    used = {*others, *(name.casefold() for name in chosen.values())}
    for model in [model for model in names if model not in chosen]:
        chosen[model] = _numbered(names[model], used)
        used.add(chosen[model].casefold())
    return chosen


def _numbered(name: str, taken: Collection[str]) -> str:
    """The name with a number, for files whose paths differ only in case."""
    numbered = (f"{name}-{number}" for number in count(1))
    return next(name for name in numbered if name.casefold() not in taken)


def _with_variant(model: _Candidate, name: str) -> str:
    return name if name == model.stem else f"{name}:{model.variant}"


def _path_as_name(model: _Candidate) -> str:
    return (model.parts[0].path.parent / model.stem).as_posix()


def _mmproj(model: _Candidate, akin: bool, projectors: Sequence[Found]) -> Path | None:
    """The projector that is named after the model, or the one of a folder that holds no other."""
    named, unnamed = [], []
    for projector in projectors:
        whose = _split_stem(_MMPROJ.sub("", projector.path.stem).strip("-_."))[0].lower()
        if whose in _SAYS_NOTHING:
            unnamed.append(projector)
        elif model.stem.lower().startswith(whose):
            named.append(projector)
    fitting = named or (unnamed if akin else [])
    return min(fitting, key=_rank).file if fitting else None


def _rank(projector: Found) -> tuple[bool, int, PurePosixPath]:
    """The projector in half precision, as projectors are made; else the smallest file."""
    half = re.search(r"(?<!b)f(?:p)?16", projector.path.stem, re.IGNORECASE)
    return half is None, projector.size, projector.path


def each_once(scans: Iterable[Iterable[Found]]) -> list[Found]:
    """All that several scans found. If folders overlap, the first scan counts."""
    finder: dict[object, int] = {}
    return [
        file
        for number, found in enumerate(scans)
        for file in found
        if file.home is None or finder.setdefault(file.home, number) == number
    ]
