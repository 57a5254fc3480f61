"""Where and with which arithmetic a network runs."""

from __future__ import annotations

import torch

from videogender.errors import ConfigError, DeviceError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

__all__ = ["choose_device", "choose_dtype", "has_native_bf16"]


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` or `mps` into a device that is there.

    Raises:
        DeviceError: if the device that was asked for is missing.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in there:
        raise DeviceError(f"device {name!r} is unknown; choose auto, cpu, cuda or mps")
    if not there[kind]:
        found = ", ".join(k for k, present in there.items() if present)
        raise DeviceError(f"device {name!r} is not available here (found: {found}); try auto")
    return torch.device(name)


def has_native_bf16(device: torch.device) -> bool:
    """Tell whether bf16 is native to a device; where it is emulated it is many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported and supported())
    return False


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Turn `auto`, `int8`, `fp32`, `bf16` or `fp16` into the dtype of what computes in floats.

    `auto` takes bf16 where the processor has it natively, fp16 on other GPUs, else fp32; so does
    `int8`, which is for what can be computed in integers.

    Raises:
        ConfigError: for another name.
    """
    if precision in ("auto", "int8"):
        if has_native_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    if precision not in DTYPES:
        raise ConfigError(
            f"precision {precision!r} is unknown; choose auto, int8, {', '.join(DTYPES)}"
        )
    return DTYPES[precision]
