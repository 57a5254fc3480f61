"""Weights as safetensors: written whole or not at all, read without running anything in them.

Also reads the public S3FD checkpoints, in which two naming families stand for two geometries:

    clcarwin, face-alignment   conv1_1 … conv7_2, conv3_3_norm_mbox_conf …   fc6 pad 3,      BGR
    yxlijun                    vgg.N, extras.N, L2Norm3_3, loc.N, conf.N     fc6 dilation 6, RGB
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from videogender.errors import ModelError, OutputError
from videogender.network.attributes import Head
from videogender.network.heads import AnchorNetwork, GenderForm
from videogender.network.layers import Ranges, are_complete, unit_names
from videogender.network.lite import Lite
from videogender.network.s3fd import MODES, S3FD, TRUNK, Mode
from videogender.network.second_stage import SecondStage
from videogender.network.trained import (
    HEAD_PREFIX,
    Trained,
    describe_head,
    empty_head,
    read_facts,
)

FORMAT = "videogender-1"
NETWORKS: dict[str, type[AnchorNetwork]] = {"lite": Lite, "vgg16": S3FD}

__all__ = ["FORMAT", "NETWORKS", "import_checkpoint", "load", "load_trained", "save"]

# Where each layer stands in yxlijun's lists, in the order of TRUNK.
VGG_POSITIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)
WRAPPERS = ("state_dict", "model_state_dict", "weight", "weights", "model", "net")
RANGES = "ranges"  # metadata: `AnchorNetwork.ranges` as JSON
PREFIXES = ("module.", "_orig_mod.")  # of wrappers, which may stand within one another


def save(
    network: AnchorNetwork,
    path: Path,
    metadata: Mapping[str, str],
    *,
    half: bool = True,
    head: Head | None = None,
) -> None:
    """Write a network's weights, atomically.

    Args:
        network: what to save; its `name`, and for `vgg16` its mode, are recorded.
        path: the `.safetensors` file.
        metadata: more to record, such as `temperature`; strings only. With a head, `task` and
            `labels` are needed; see `trained`.
        half: store the network's floats as fp16.
        head: a head that was fine-tuned beside the network; it is small and stays as it is.

    Raises:
        OutputError: if the file cannot be written.
    """
    state = {
        k: (v.half() if half and v.is_floating_point() else v).contiguous().cpu()
        for k, v in network.state_dict().items()
    }
    if head is not None:
        state |= {HEAD_PREFIX + k: v.contiguous().cpu() for k, v in head.state_dict().items()}
    facts = {"format": FORMAT, "model": network.name, **metadata, **describe_head(head)}
    if isinstance(network, S3FD):
        facts["mode"] = network.mode
    facts.pop(RANGES, None)  # those of other weights, maybe
    if network.ranges:
        facts[RANGES] = json.dumps(network.ranges)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            # safetensors' own `save_file` makes files that nobody but their owner may read
            temporary.write_bytes(serialised(state, metadata=facts))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: weights could not be written ({error})") from error


def load(path: Path) -> tuple[AnchorNetwork, dict[str, str]]:
    """Read weights written by `save` into a network of their model, float32 on the CPU.

    Gender heads are built if the file holds any; a fine-tuned head is left to `load_trained`.

    Returns:
        The network in evaluation mode, and the metadata.

    Raises:
        ModelError: if the file is missing, corrupt, or of another shape than its model's.
    """
    trained = load_trained(path)
    return trained.network, trained.metadata


def load_trained(path: Path) -> Trained:
    """Read weights written by `save`: the network and the head that was fine-tuned beside it.

    Raises:
        ModelError: if the file is missing, corrupt, of another shape than its model's, or its
            metadata are not what `trained` describes.
    """
    everything, metadata = _read_safetensors(path)
    state = {k: v for k, v in everything.items() if not k.startswith(HEAD_PREFIX)}
    of_head = {k.removeprefix(HEAD_PREFIX): v for k, v in everything.items() if k not in state}
    model = metadata.get("model", "")
    if model not in NETWORKS:
        raise ModelError(
            f"{path}: made for model {model or 'unknown'!r}, expected one of {', '.join(NETWORKS)}"
        )
    gender = _gender_form(state)
    with torch.device("meta"):  # shapes alone; the weights are the file's
        network = Lite(gender) if model == "lite" else S3FD(_mode(path, metadata), gender)
        if any(key.startswith("second_stage.") for key in state):
            network.second_stage = SecondStage()
    _fill(network, state, path, f"model {model!r}")
    network.ranges = _ranges(path, metadata, network)
    facts = read_facts(metadata, path, has_gender=bool(gender))
    with torch.device("meta"):
        head = empty_head(facts, of_head, metadata, network, path)
    if head is not None:
        _fill(head, of_head, path, f"a head for {len(facts.labels)} classes")
        head.eval().requires_grad_(False)
    return Trained(network.eval().requires_grad_(False), head, facts, metadata, path)


def import_checkpoint(path: Path) -> tuple[AnchorNetwork, dict[str, str]]:
    """Read a public S3FD checkpoint of either naming family, without running anything in it.

    The file may hold a bare state dict or one within `{'epoch', 'weight'}`, `{'state_dict'}` and
    the like, with or without a `module.` prefix, as PyTorch wrote it or as safetensors. Weights
    trained on RGB get the input channels of their first layer turned round, so that every network
    takes BGR. A file that `save` wrote is loaded as it is.

    Returns:
        The network in evaluation mode, float32 on the CPU, and what to record about it: `mode`,
        `naming`, `chosen` (a sentence for people), `source_file`, `source_sha256`.

    Raises:
        ModelError: if the file is missing, unreadable, holds more than plain tensors, follows
            neither family, or has other shapes than S3FD.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    if _is_safetensors(path) and _read_safetensors(path)[1].get("format") == FORMAT:
        return load(path)
    state = _plain_state(path)
    mode: Mode
    if "vgg.0.weight" in state and "L2Norm3_3.weight" in state:
        naming, mode, colour = "yxlijun", "dilated", "RGB"
        state = _from_yxlijun(state, path)
    elif "conv1_1.weight" in state and "conv3_3_norm.weight" in state:
        naming, mode, colour = "clcarwin", "padded", "BGR"
    else:
        first = ", ".join(list(state)[:2]) or "nothing"
        raise ModelError(
            f"{path}: not an S3FD checkpoint of a known kind: expected layers conv1_1, "
            f"conv3_3_norm … or vgg.0, L2Norm3_3 …, found {first} …"
        )
    gender = sorted({key.partition("_gender.")[0] for key in state if "_gender." in key})
    with torch.device("meta"):
        network = S3FD(mode, gender=bool(gender))
    if gender and len(gender) < len(network.taps):
        state = _complete_gender(network, state)
    _fill(network, state, path, f"model {network.name!r}")
    if colour == "RGB":
        with torch.no_grad():  # the means are the same numbers, colour by colour
            weight: Tensor = network.get_parameter("conv1_1.weight")
            weight.copy_(weight.flip(1))
    fc6 = "padding 3, no dilation" if mode == "padded" else "padding 6, dilation 6"
    heads = f"gender heads on {', '.join(gender)}" if gender else "no gender heads"
    metadata = {
        "mode": mode,
        "naming": naming,
        "chosen": f"{naming}'s layer names: fc6 with {fc6}, trained on {colour}; {heads}",
        "source_file": path.name,
        "source_sha256": _sha256(path),
    }
    return network.eval().requires_grad_(False), metadata


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from error


def _gender_form(state: Mapping[str, Tensor]) -> GenderForm | Literal[False]:
    """Tell which gender heads a state dict holds."""
    if not any("_gender." in key for key in state):
        return False
    return "tower" if any(key.startswith("gender_shared.") for key in state) else "linear"


def _ranges(path: Path, metadata: Mapping[str, str], network: AnchorNetwork) -> Ranges | None:
    """Read the ranges of a network's units; those of some units alone are of no use."""
    if RANGES not in metadata:
        return None
    try:
        stored = json.loads(metadata[RANGES])
        found = {name: (float(low), float(high)) for name, (low, high) in stored.items()}
    except (AttributeError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its metadata's {RANGES} cannot be read ({error})") from error
    units = unit_names(network)
    for name, (low, high) in found.items():
        if name not in units or not -math.inf < low <= 0 <= high < math.inf:
            raise ModelError(
                f"{path}: its metadata's {RANGES} hold {low:g} to {high:g} for {name[:60]!r}, "
                "expected a unit of the network and finite numbers around 0"
            )
    return found if are_complete(found, network) else None


def _mode(path: Path, metadata: Mapping[str, str]) -> Mode:
    found = metadata.get("mode", "nothing")
    for mode in MODES:
        if mode == found:
            return mode
    raise ModelError(f"{path}: its metadata gives {found!r} as mode, expected {' or '.join(MODES)}")


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Put checked copies of the tensors into a network or a head that has shapes alone."""
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    if missing or unknown:
        raise ModelError(
            f"{path}: does not fit {name}: {len(missing)} tensors missing, "
            f"{len(unknown)} unknown (first: {(missing + unknown)[0]})"
        )
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape:
            raise ModelError(
                f"{path}: does not fit {name}: {key} has shape "
                f"{tuple(tensor.shape)}, expected {tuple(wanted[key].shape)}"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{path}: damaged: {key} holds values that are not finite")
    copies = {
        key: tensor.detach().to(wanted[key].dtype, copy=True).contiguous()
        for key, tensor in state.items()
    }
    module.load_state_dict(copies, assign=True)


def _plain_state(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint, out of its wrappers and without its prefixes."""
    found = _unpickle(path) if not _is_safetensors(path) else _read_safetensors(path)[0]
    while isinstance(found, Mapping):
        inner = next((w for w in WRAPPERS if isinstance(found.get(w), Mapping)), None)
        if inner is None:
            break
        found = found[inner]
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: holds a {type(found).__name__}, expected a state dict")
    state = {}
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"{path}: not a state dict: {key!r} is a {type(value).__name__}")
        name = str(key)
        while name.startswith(PREFIXES):
            name = name.partition(".")[2]
        state[name] = value
    return state


def _is_safetensors(path: Path) -> bool:
    """Tell by the first bytes: eight of length, then JSON."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


def _unpickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: object = torch.load(path, map_location="cpu", weights_only=True)
            return found
    except pickle.UnpicklingError as error:
        # PyTorch's own text recommends the unsafe way; it is not shown
        if "unsupported global" in str(error).lower():
            raise ModelError(
                f"{path}: holds more than tensors and could run code, so it is not read; where you "
                "trust it, save the state dict alone: torch.save(model.state_dict(), …)"
            ) from error
        raise ModelError(f"{path}: not a PyTorch checkpoint, or damaged") from error
    except Exception as error:  # a damaged file can end in any of them
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ModelError(f"{path}: not a PyTorch checkpoint, or damaged ({reason})") from error


def _from_yxlijun(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename a state dict from yxlijun's layer lists to S3FD's layer names."""
    positions = [f"vgg.{n}" for n in VGG_POSITIONS] + [f"extras.{n}" for n in range(4)]
    names = dict(zip(positions, TRUNK, strict=True))
    for level, tap in enumerate(S3FD.taps):
        names[f"loc.{level}"] = f"{tap}_mbox_loc"
        names[f"conf.{level}"] = f"{tap}_mbox_conf"
    for block in ("3_3", "4_3", "5_3"):
        names[f"L2Norm{block}"] = f"conv{block}_norm"
    renamed = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        if layer not in names:
            raise ModelError(f"{path}: not a plain S3FD: unknown layer {key}")
        renamed[f"{names[layer]}.{kind}"] = tensor
    return renamed


def _complete_gender(network: S3FD, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give levels without a gender head one that answers one half: it starts from the face head."""
    full = dict(state)
    for tap in network.taps:
        for kind in ("weight", "bias"):
            face = state.get(f"{tap}_mbox_conf.{kind}")
            if f"{tap}_gender.{kind}" not in state and face is not None and face.ndim > 0:
                full[f"{tap}_gender.{kind}"] = torch.cat([face[-1:], face[-1:]])
    return full


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
