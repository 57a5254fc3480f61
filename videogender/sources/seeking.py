"""Going to a time in a file without missing a frame, and counting what lies before it."""

from __future__ import annotations

from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

__all__ = ["Key", "frames_before", "go_to"]

Key = tuple[int, int | None]
"""pts and dts of the packet at which decoding starts."""

# Seconds to go further back when a file's index led to a key frame behind the wanted time.
_STEPS_BACK = (0, 2, 15)


def go_to(container: InputContainer, stream: VideoStream, pts: int) -> Key | None:
    """Move to a key frame at or before a time; the next packets read are those from there on.

    Args:
        container: as opened.
        stream: the stream of `container` whose frames are wanted.
        pts: in ticks of the stream.

    Returns:
        The key frame's times, before which other packets may come, or None if the file stands at
        its beginning instead.

    Raises:
        av.FFmpegError, OSError: one cannot move in this file; open it anew.
    """
    assert stream.time_base is not None
    first = stream.start_time or 0
    for back_seconds in _STEPS_BACK:
        target = pts - round(back_seconds / stream.time_base)
        if target <= first:
            break
        key = _key_at(container, stream, target)
        if key is not None and key[0] <= pts:
            # Reading ahead has moved on; go there again.
            container.seek(target, stream=stream)
            return key
    try:
        container.seek(min(first, 0), stream=stream)
    except (av.FFmpegError, OSError):
        container.seek(0)
    return None


def _key_at(container: InputContainer, stream: VideoStream, target: int) -> Key | None:
    try:
        container.seek(target, stream=stream)
        for packet in container.demux(stream):
            if packet.pts is None:
                return None
            if packet.is_keyframe:
                return packet.pts, packet.dts
    except (av.FFmpegError, OSError):
        return None
    return None


def frames_before(path: Path, container: InputContainer, stream: VideoStream, key: Key) -> int:
    """Count the frames in front of a key frame, without decoding them.

    MP4 files list every frame; others are read up to there.

    Args:
        path: the file.
        container: it, opened.
        stream: the stream of `container` that is meant.
        key: what `go_to` returned.
    """
    pts, dts = key
    if "mp4" in container.format.name and stream.frames and dts is not None:
        return sum(1 for e in stream.index_entries if e.timestamp < dts and not e.is_discard)
    count = 0
    with av.open(f"file:{path}", metadata_errors="replace") as again:
        for other in again.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        for packet in again.demux(again.streams[stream.index]):
            if packet.pts == pts or packet.size == 0:
                break
            count += not packet.is_discard
    return count
