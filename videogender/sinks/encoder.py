"""Video encoders of libav: found by name, set up by the settings, their refusals put into words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

import av
import av.error

from videogender.config import VideoSettings
from videogender.errors import ConfigError

__all__ = ["config_errors", "find_encoder", "opens", "set_quality"]

# Encoders without a constant rate factor take a fixed quantiser; 20 of the one is about 4 there.
_CRF_A_QUANTISER = 5
_LAMBDA_A_QUANTISER = 118  # FF_QP2LAMBDA
_USUAL_WH, _USUAL_RATE = (640, 480), 25


def find_encoder(name: str) -> av.Codec:
    """Find a video encoder by its own name or by that of its format.

    Raises:
        ConfigError: there is none.
    """
    try:
        codec = av.Codec(name, "w")
    except ValueError as error:
        near = get_close_matches(name, sorted(av.codecs_available), 1)
        hint = f"do you mean {near[0]}?" if near else "libx264 and libx265 are usual"
        raise ConfigError(f"unknown video encoder {name!r}; {hint}") from error
    if codec.type != "video":
        raise ConfigError(f"{name!r} encodes {codec.type}, not video; libx264 is usual")
    formats = {f.name for f in codec.video_formats or ()}
    if formats and "yuv420p" not in formats:
        raise ConfigError(f"encoder {name!r} does not take 8-bit 4:2:0 video; libx264 is usual")
    return codec


def set_quality(context: Any, codec: av.Codec, settings: VideoSettings) -> None:
    """Set quality and speed by whatever options an encoder has for them."""
    known = {option.name: option for option in context.supported_options.private}
    options = context.options
    if "crf" in known or "cq" in known:
        options["crf" if "crf" in known else "cq"] = str(settings.crf)
    else:
        quantiser = max(2, round(settings.crf / _CRF_A_QUANTISER))
        context.qscale = True
        context.global_quality = quantiser * _LAMBDA_A_QUANTISER
    preset = known.get("preset")
    if preset is not None:
        names = {choice.name for choice in preset.choices}
        # x264 and x265 keep their names to themselves; others list them or count.
        free = preset.type == av.codec.context.OptionType.STRING
        if free or settings.preset in names or settings.preset.lstrip("-").isdigit():
            options["preset"] = settings.preset
    if codec.name == "libx265":
        options["x265-params"] = "log-level=error"


@contextmanager
def config_errors(settings: VideoSettings) -> Iterator[None]:
    """Tell what an encoder refuses."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, av.FFmpegError) and opens(settings):
            raise ConfigError(
                f"encoder {settings.codec!r} takes no pictures of this size; scale them, or name "
                "another"
            ) from error
        raise ConfigError(
            f"encoder {settings.codec!r} does not open with crf {settings.crf} and preset "
            f"{settings.preset!r}; check these, or take libx264"
        ) from error


def opens(settings: VideoSettings) -> bool:
    """Tell whether an encoder opens with the settings for pictures of a usual size.

    Those of graphics hardware do not where that is missing.

    Raises:
        ConfigError: there is no such encoder.
    """
    codec = find_encoder(settings.codec)
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height = _USUAL_WH
    context.pix_fmt, context.framerate = "yuv420p", _USUAL_RATE
    context.time_base = Fraction(1, _USUAL_RATE)
    set_quality(context, codec, settings)
    try:
        context.open()
    except (av.FFmpegError, OSError, ValueError):
        return False
    return True
