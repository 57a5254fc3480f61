"""Where weights live: in the package those that we trained, in the user's cache all others.

    <package>/weights/lite.safetensors     ships
    <cache>/weights/<name>.safetensors     imported; `vgg16` is what `--model vgg16` takes
    <cache>/downloads/                     transfers that are not finished

`VIDEOGENDER_CACHE` names another folder as the cache. Nothing here needs PyTorch except
`add_file`, so that listing is quick.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from videogender.errors import ModelError, OutputError

__all__ = [
    "MODELS",
    "PUBLIC",
    "PublicFile",
    "WeightsFile",
    "add_file",
    "cache_dir",
    "cached_path",
    "find_same",
    "inspect",
    "known",
    "resolve",
    "sha256_of",
]


class PublicFile(NamedTuple):
    """A checkpoint that others publish: the model it is for, and where it lies."""

    model: str
    url: str


PACKAGED = ("lite",)
MODELS = (*PACKAGED, "vgg16")
# Public files that `videogender weights pull` knows: the digits of a name are the start of its
# SHA-256 (PyTorch hub's convention). This one is the authors' model, as face-alignment serves it.
PUBLIC = {
    "s3fd": PublicFile(
        "vgg16", "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth"
    )
}
CACHE_VARIABLE = "VIDEOGENDER_CACHE"
SUFFIX = ".safetensors"

Origin = Literal["package", "cache", "file"]


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One weights file, as far as its header tells.

    Attributes:
        name: what `--weights` or `--model` calls it.
        model: the network it is for: `lite` or `vgg16`; empty if unknown.
        origin: whether it ships, was imported, or is just a file.
        path: where it lies, or would lie.
        size_bytes: 0 while it is not there.
        sha256: of the file, 64 digits; empty while it is not there.
        has_gender: whether it holds gender heads.
        problem: why it cannot be used, or empty.
        metadata: what its header records.
    """

    name: str
    model: str
    origin: Origin
    path: Path
    size_bytes: int = 0
    sha256: str = ""
    has_gender: bool = False
    problem: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def cache_dir() -> Path:
    """Return the cache folder; it need not exist yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("videogender", appauthor=False)


def cached_path(name: str) -> Path:
    """Return where imported weights of a name live.

    Raises:
        ModelError: the name could not be a file's.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ModelError(f"{name!r} cannot name weights: use letters, digits, dots, - and _")
    return cache_dir() / "weights" / f"{name}{SUFFIX}"


def resolve(model: str, weights: str | None = None) -> Path:
    """Return the file to load.

    Args:
        model: `lite` or `vgg16`; not looked at if `weights` is given.
        weights: a `.safetensors` file, or the name of imported weights.

    Raises:
        ModelError: the model is unknown, or there is no such file; the message says how to get it.
    """
    if weights is not None:
        return _resolve_weights(weights)
    if model not in MODELS:
        raise ModelError(f"unknown model {model!r}; known are {', '.join(MODELS)}")
    if model in PACKAGED:
        path = _packaged_path(model)
        if not path.is_file():
            raise ModelError(f"{path}: the weights of {model} are missing; reinstall videogender")
        return path
    path = cached_path(model)
    if not path.is_file():
        raise ModelError(
            f"no weights for {model} here yet: fetch the public ones with `videogender weights "
            "pull s3fd`, or give a checkpoint to `videogender weights import FILE`"
        )
    return path


def known() -> list[WeightsFile]:
    """Return every model, there or not, and then all other imported weights by name.

    A file that cannot be used is listed with its `problem`.
    """
    found = [_look(model, _packaged_path(model), "package") for model in PACKAGED]
    names = [model for model in MODELS if model not in PACKAGED]
    names += sorted(
        path.stem for path in (cache_dir() / "weights").glob(f"*{SUFFIX}") if path.stem not in names
    )
    return found + [_look(name, cache_dir() / "weights" / f"{name}{SUFFIX}") for name in names]


def inspect(path: Path, *, name: str = "", origin: Origin = "file") -> WeightsFile:
    """Read the header of a weights file and hash it.

    Raises:
        ModelError: the file is missing, not safetensors, or of no known model.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            gender = any("_gender." in key for key in file.keys())  # noqa: SIM118
        size, digest = path.stat().st_size, sha256_of(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from error
    model = metadata.get("model", "")
    if model not in MODELS:
        raise ModelError(f"{path}: its metadata names no model that is known here")
    return WeightsFile(name or path.stem, model, origin, path, size, digest, gender, "", metadata)


def add_file(path: Path, name: str | None = None, *, force: bool = False) -> WeightsFile:
    """Check a checkpoint, convert it, and keep it in the cache.

    Args:
        path: a public S3FD checkpoint of either naming family, or weights that videogender wrote.
        name: what to call it; None takes the model's name, or for weights of a model that ships,
            the file's.
        force: replace other weights of that name.

    Returns:
        What lies in the cache now; its metadata say how the file was understood.

    Raises:
        ModelError: the file or the name cannot be used.
        OutputError: other weights have that name, or the cache cannot be written.
    """
    if name is not None:
        cached_path(name)
    from videogender.network import checkpoints

    network, metadata = checkpoints.import_checkpoint(path)
    if name is None:
        name = path.stem if network.name in PACKAGED else network.name
    if name in PACKAGED or (name in MODELS and name != network.name):
        raise ModelError(f"{path}: {name} is the name of a model; choose another with --name")
    target = cached_path(name)
    source = metadata.get("source_sha256") or sha256_of(path)
    present = None if force else find_same(name, source)
    if present:
        return present
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent}: cannot be created: {error.strerror}") from error
    if metadata.get("format") == checkpoints.FORMAT:
        _copy(path, target)
    else:
        # fp32 as published: it must give what its own code gives
        checkpoints.save(network, target, metadata, half=False)
    return inspect(target, name=name, origin="cache")


def find_same(name: str, source_sha256: str) -> WeightsFile | None:
    """Return the imported weights of a name if they came from a certain file.

    Args:
        name: what they are called.
        source_sha256: the digest of the file, or its start.

    Returns:
        The weights, or None if the name is free (a damaged file does not take it).

    Raises:
        OutputError: other weights have that name.
    """
    present = _look(name, cached_path(name))
    if present.problem:
        return None
    sources = (present.sha256, present.metadata.get("source_sha256", ""))
    if source_sha256 and any(digest.startswith(source_sha256) for digest in sources):
        return present
    raise OutputError(
        f"{present.path}: other weights are already called {name}; give --force to replace them "
        "or --name to keep both"
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packaged_path(model: str) -> Path:
    return Path(__file__).parent / "weights" / f"{model}{SUFFIX}"


def _resolve_weights(weights: str) -> Path:
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelError(f"{weights}: a folder, expected a {SUFFIX} file")
    if path.name == weights:  # no folder in it: it may be a name
        try:
            cached = cached_path(weights.removesuffix(SUFFIX))
        except ModelError:
            cached = path
        if cached.is_file():
            return cached
    raise ModelError(
        f"{weights}: no such weights file; `videogender weights list` shows what is here"
    )


def _look(name: str, path: Path, origin: Origin = "cache") -> WeightsFile:
    """Inspect a file that may be absent or damaged."""
    try:
        return inspect(path, name=name, origin=origin)
    except ModelError as error:
        problem = "damaged" if path.is_file() else "not here"
        size = path.stat().st_size if path.is_file() else 0
        return WeightsFile(name, "", origin, path, size, problem=f"{problem}: {error}")


def _copy(source: Path, target: Path) -> None:
    """Copy a file, atomically."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: weights could not be written ({error})") from error
