"""Fills a bank with maps: of whole pictures for `classifier`, of crops around faces for `refeed`.

Pictures and crops are made by the same functions as when the weights are used.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from videogender.classify import fitted
from videogender.closeup import face_crops
from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.finetuning.bank import BankWriter
from videogender.finetuning.datasets.sample import Sample
from videogender.finetuning.harvest import most_prominent
from videogender.finetuning.settings import FeatureSettings
from videogender.finetuning.trunk import Trunk, by_picture, read_chunks
from videogender.frames import Faces, RgbPicture
from videogender.network.attributes import LinearClassifier, RefeedHead
from videogender.network.boxes import iou_matrix
from videogender.network.heads import FEMALE, MALE, AnchorNetwork
from videogender.network.second_stage import FACE_PX, SIDE_PX, SecondStage

__all__ = ["FirstLook", "harvest_close_ups", "harvest_crops", "harvest_pictures", "map_shape"]

Tell = Callable[[int, int], None]
LEAST_SCORE = 0.3  # of faces that are looked at twice: below, most are none


@dataclass(frozen=True, slots=True, eq=False)
class FirstLook:
    """What the detector says before the second look.

    Attributes:
        female: float32 [S], NaN where it did not find the face or has no gender heads.
        ms_a_crop: what cutting a face out and looking at it again took.
    """

    female: NDArray[np.float32]
    ms_a_crop: float


def map_shape(trunk: Trunk, head: LinearClassifier | RefeedHead) -> tuple[int, ...]:
    """Return the shape (C, cells, cells) of what a head reads of a map."""
    blank = np.zeros((head.side_px, head.side_px, 3), np.uint8)
    features = trunk([blank]).features
    read = head.centre(features) if isinstance(head, RefeedHead) else features[head.level]
    return tuple(read.shape[1:])


def harvest_pictures(
    trunk: Trunk,
    samples: Sequence[Sample],
    head: LinearClassifier,
    settings: FeatureSettings,
    writer: BankWriter,
    workers: int = 0,
    tell: Tell = lambda done, total: None,
) -> None:
    """Write the last map of every sample's whole picture; level 0 of the bank."""
    pictures, done = by_picture([sample.path for sample in samples]), 0
    for chunk, images in read_chunks(pictures, workers):
        squares = [fitted(RgbPicture(image), head.side_px) for image in images]
        who = [picture.samples[0] for picture in chunk]
        for index, sample in zip(who, (samples[i] for i in who), strict=True):
            writer.boxes[index] = (0, 0, sample.width, sample.height)
        writer.face_px[who] = head.side_px
        for view, batch, at in _shown(squares, who, settings):
            read = trunk(batch).features[head.level]
            writer.add(0, torch.tensor(at), view, torch.ones(len(at)), read)
        done += len(chunk)
        tell(done, len(pictures))


def harvest_crops(
    trunk: Trunk,
    network: AnchorNetwork,
    samples: Sequence[Sample],
    head: RefeedHead,
    settings: FeatureSettings,
    temperature: float,
    writer: BankWriter,
    workers: int = 0,
    tell: Tell = lambda done, total: None,
) -> FirstLook:
    """Write what a refeed head reads of the crop around each face that is found; level 0.

    Args:
        trunk: looks at the crops.
        network: finds the faces; it is copied.
        samples: the faces.
        head: whose sizes and level are meant.
        settings: gate, views.
        temperature: of the network's gender heads.
        writer: where patches go; its `boxes` become those that were found.
        workers: threads that decode.
        tell: told how many of how many pictures are done.
    """
    detect = DetectSettings(
        long_side=settings.long_side,
        face_threshold=max(settings.gate, LEAST_SCORE),
        precision=settings.precision,
        batch_size=settings.batch,
    )
    detector = Detector(copy.deepcopy(network), detect, trunk.device, temperature)
    female = np.full(len(samples), np.nan, np.float32)
    score = np.zeros(len(samples), np.float32)
    seconds, crops, done = 0.0, 0, 0
    pictures = by_picture([sample.path for sample in samples])
    for chunk, images in read_chunks(pictures, workers):
        found = detector(images)
        began = time.monotonic()
        squares: list[NDArray[np.uint8]] = []
        who: list[int] = []
        for picture, image, faces in zip(chunk, images, found, strict=True):
            shrunk = min(1.0, settings.long_side / max(image.shape[:2]))
            for index, row in _matched(picture.samples, samples, faces, settings.match_iou):
                box = faces.boxes[row : row + 1]
                writer.boxes[index] = box[0]
                writer.face_px[index] = (box[0, 2:] - box[0, :2]).max() * shrunk
                female[index], score[index] = faces.female[row], faces.scores[row]
                squares.extend(face_crops(image, box, head.side_px, head.face_px))
                who.append(index)
        for view, batch, at in _shown(squares, who, settings):
            read = head.centre(trunk(batch).features)
            writer.add(0, torch.tensor(at), view, torch.from_numpy(score[at]), read)
        seconds, crops = seconds + time.monotonic() - began, crops + len(who)
        done += len(chunk)
        tell(done, len(pictures))
    return FirstLook(female, 1000 * seconds / max(1, crops * (1 + settings.mirror)))


def _shown(
    squares: list[NDArray[np.uint8]], who: list[int], settings: FeatureSettings
) -> Iterator[tuple[int, list[NDArray[np.uint8]], list[int]]]:
    """Yield (view, squares, whose) a forward pass: as they are, and mirrored."""
    for view in range(1 + settings.mirror):
        for start in range(0, len(squares), settings.batch):
            part = squares[start : start + settings.batch]
            yield view, [s[:, ::-1] if view else s for s in part], who[start : start + len(part)]


def harvest_close_ups(
    stage: SecondStage,
    device: torch.device,
    samples: Sequence[Sample],
    boxes: NDArray[np.float32],
    workers: int = 0,
) -> NDArray[np.float32]:
    """Ask a second stage about every face.

    Args:
        stage: it is copied.
        device: where to run.
        samples: the faces.
        boxes: float32 [S, 4], where they are, xyxy in pixels of their pictures; NaN for unknown.
        workers: threads that decode.

    Returns:
        float32 [S], log-odds of female; NaN where no box is known.
    """
    own = copy.deepcopy(stage).eval().to(device)
    own.fuse()
    mean = torch.tensor(own.pixel_mean_bgr, device=device)
    margins = np.full(len(samples), np.nan, np.float32)
    known = np.flatnonzero(~np.isnan(boxes[:, 0]))
    pictures = by_picture([samples[int(i)].path for i in known])
    for chunk, images in read_chunks(pictures, workers):
        who = [known[picture.samples] for picture in chunk]
        limits = [np.array([*image.shape[1::-1]] * 2, np.float32) for image in images]
        cuts = [
            face_crops(image, boxes[rows].clip(0, limit), SIDE_PX, FACE_PX)
            for image, rows, limit in zip(images, who, limits, strict=True)
        ]
        bgr = torch.from_numpy(np.concatenate(cuts)[..., ::-1].copy()).to(device)
        seen = (bgr - mean).permute(0, 3, 1, 2)
        with torch.inference_mode():
            # the detector, too, sees faces mirrored where it is in doubt
            gender = (own(seen).gender + own(seen.flip(3)).gender) / 2
        margins[np.concatenate(who)] = (gender[:, FEMALE] - gender[:, MALE]).float().cpu().numpy()
    return margins


def _matched(
    indices: list[int], samples: Sequence[Sample], faces: Faces, least_iou: float
) -> Iterator[tuple[int, int]]:
    """Yield (sample, row of its face) for the samples of a picture whose face was found."""
    if not len(faces):
        return
    boxes, scores = torch.from_numpy(faces.boxes), torch.from_numpy(faces.scores)
    for index in indices:
        box = samples[index].box
        if box is None:
            yield index, most_prominent(boxes, scores)
            continue
        width, height = samples[index].width, samples[index].height
        limit = torch.tensor([width, height, width, height], dtype=torch.float32)
        wanted = torch.minimum(torch.tensor([box]).clamp(min=0), limit)
        overlap = iou_matrix(torch.minimum(boxes.clamp(min=0), limit), wanted)[:, 0]
        best = int(overlap.argmax())
        if overlap[best] >= least_iou:
            yield index, best
