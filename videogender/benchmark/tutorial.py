"""A face detector's ONNX file over a video as tutorials do it: OpenCV, frame by frame, no sound.

Run as a program of its own by `videogender bench --peers`; nothing here is used elsewhere.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

from videogender.evaluation.peers.forms import Floats, Form
from videogender.evaluation.peers.open_sizes import open_sizes

FORMS = ("yunet", "scrfd", "centerface")  # modules of `videogender.evaluation.peers`
BLANK_HW = (64, 96)  # two sizes that no form takes for one another
MULTIPLE = 32  # of both sides of what such networks take

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Find and frame the faces of a video, and print how many frames and faces there were.

    Args:
        arguments: the ONNX file, the video, the MP4 file to write, the long side in pixels at which
            the network looks (0 takes frames as they are), and the least score of a face.
    """
    file, clip, target, long_side, threshold = arguments
    session, form, fixed_hw = _load(Path(file))
    name = session.get_inputs()[0].name
    reader = cv2.VideoCapture(clip)
    width, height = (
        int(reader.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    size_wh = _size_wh(width, height, int(long_side)) if fixed_hw is None else fixed_hw[::-1]
    kind = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(target, kind, reader.get(cv2.CAP_PROP_FPS), (width, height))
    grow = np.array([width / size_wh[0], height / size_wh[1]] * 2, np.float32)
    frames = faces = 0
    while True:
        there, frame = reader.read()
        if not there:
            break
        small = cv2.cvtColor(cv2.resize(frame, size_wh), cv2.COLOR_BGR2RGB)
        outputs = session.run(None, {name: form.prepare(np.asarray(small, np.uint8))})
        boxes, scores = form.decode(outputs, size_wh[::-1])
        for x1, y1, x2, y2 in _kept(boxes * grow, scores, float(threshold), form.NMS_IOU):
            cv2.rectangle(frame, (int(x1), int(y1)), (int(x2), int(y2)), (0, 255, 0), 2)
            faces += 1
        writer.write(frame)
        frames += 1
    writer.release()
    print(json.dumps({"frames": frames, "faces": faces, "size_wh": size_wh}))
    return 0


def _load(file: Path) -> tuple[Any, Form, tuple[int, int] | None]:
    """Return a session, its form, and the one size (height, width) it takes if it is so."""
    session = onnxruntime.InferenceSession(
        open_sizes(file.read_bytes()), providers=["CPUExecutionProvider"]
    )
    try:
        return session, _form(session, BLANK_HW), None
    except Exception:  # perhaps its operators, too, are for one size
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        height, width = session.get_inputs()[0].shape[2:]
        return session, _form(session, (height, width)), (height, width)


def _form(session: Any, size_hw: tuple[int, int]) -> Form:
    blank = np.zeros((1, 3, *size_hw), np.float32)
    outputs = session.run(None, {session.get_inputs()[0].name: blank})
    for name in FORMS:
        form: Any = import_module(f"videogender.evaluation.peers.{name}")
        if form.recognises(outputs, size_hw):
            known: Form = form
            return known
    raise ValueError(f"neither of {', '.join(FORMS)}")


def _size_wh(width: int, height: int, long_side: int) -> tuple[int, int]:
    scale = min(1.0, long_side / max(width, height)) if long_side else 1.0
    wide, high = (math.ceil(round(side * scale) / MULTIPLE) * MULTIPLE for side in (width, height))
    return wide, high


def _kept(boxes: Floats, scores: Floats, threshold: float, iou: float) -> Floats:
    """Return the boxes of faces, xyxy, the weaker of two that overlap left out."""
    chosen = np.flatnonzero(scores >= threshold)
    if not len(chosen):
        return boxes[:0]
    corners, sizes = boxes[chosen, :2], boxes[chosen, 2:] - boxes[chosen, :2]
    as_xywh = np.concatenate([corners, sizes], 1).tolist()
    kept = cv2.dnn.NMSBoxes(as_xywh, scores[chosen].tolist(), threshold, iou)
    best: Floats = boxes[chosen[np.asarray(kept, int).ravel()]]
    return best


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
