"""The recipe `joint`: everything learns with a small rate, detection beside gender.

It is `videogender train` on the labelled faces. Other faces in the same pictures, as far as the
network sees them, count neither as found nor as missed. Detection is judged before and after.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from videogender.config import DetectSettings
from videogender.dataset import FILE_NAME, read_entries
from videogender.detector import Detector
from videogender.devices import choose_device
from videogender.errors import ConfigError
from videogender.evaluation.detection import iou
from videogender.evaluation.validation import ValidationData, validate
from videogender.finetuning.data import Data
from videogender.finetuning.datasets import Sample
from videogender.finetuning.figures import FACE_SCORE, Answers, by_size
from videogender.finetuning.folder import FinetuneFolder
from videogender.finetuning.loop import Progress as Learned
from videogender.finetuning.request import Request, Watcher
from videogender.finetuning.results import as_json, compare
from videogender.finetuning.settings import FinetuneSettings
from videogender.finetuning.trunk import by_picture, read_chunks
from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork
from videogender.network.trained import Trained
from videogender.training.engine import Progress
from videogender.training.keyed import flat
from videogender.training.launch import TrainData, train
from videogender.training.settings import LossSettings, TrainSettings

GENDERS = ("female", "male")
OTHERS = 0.3  # least score of a face that is not labelled, but there
SAME_FACE = 0.4  # IoU

__all__ = ["train_jointly"]


def train_jointly(
    request: Request,
    settings: FinetuneSettings,
    folder: FinetuneFolder,
    trained: Trained,
    watcher: Watcher,
) -> dict[str, Any]:
    """Train, judge before and after, and write what a run leaves.

    Raises:
        ConfigError: the labels are not genders, or the model is not `lite`.
    """
    data, want = request.data, settings.joint
    if data.classes != GENDERS or trained.network.name != "lite":
        raise ConfigError("recipe joint trains the genders of lite; take heads for anything else")
    device, began = choose_device(request.device), time.monotonic()
    folder.joint.mkdir(parents=True, exist_ok=True)
    goes_on = request.resume and (folder.joint / "run" / "last.pt").is_file()
    if not goes_on:  # what a run has begun with stays as it is
        for side in ("train", "val", "test"):
            samples = [data.samples[i] for i in getattr(data, side)]
            _write_side(folder.joint / side, samples, trained, device, settings)
    sides = {s: folder.joint / s for s in ("train", "val", "test")}
    val_scenes = [Path(want.val_scenes)] if want.val_scenes else [sides["val"]]
    scenes = ValidationData([e for path in val_scenes for e in read_entries(path)])

    def judge(network: AnchorNetwork, temperature: float) -> tuple[Answers, float | None]:
        tall = validate(network, scenes, device).tall
        answers = answers_of(network, temperature, data, device, settings)
        return answers, tall.average_precision if tall is not None else None

    before = judge(trained.network, trained.facts.gender_temperature)

    def tell(progress: Progress) -> None:
        watcher.learning(
            Learned(
                1,
                1,
                progress.step,
                want.steps,
                progress.gender,
                float("nan"),
                progress.images_per_second,
                progress.seconds_left,
            )
        )

    best = train(
        TrainData(
            scenes=[Path(want.scenes)] if want.scenes else [],
            portraits=[sides["train"]],
            val_scenes=val_scenes,
            val_portraits=[sides["val"]],
        ),
        _train_settings(settings),
        folder.joint / "run",
        device=request.device,
        init=request.weights,
        resume=goes_on,
        force=True,  # one killed before its first checkpoint begins anew
        say=watcher.say,
        report=tell,
    )
    network, metadata = checkpoints.load(best)
    after = judge(network, float(metadata.get("temperature", "1")))
    results = _results(request, settings, folder, trained, before, after)
    results["seconds"] = time.monotonic() - began
    figures = {k: v for k, v in results["after"].items() if not isinstance(v, dict)}
    facts = {
        "task": "gender",
        "labels": json.dumps(GENDERS),
        "recipe": settings.recipe,
        "column": data.labelled.column,
        "temperature": metadata.get("temperature", "1"),
        "settings": json.dumps(flat(settings)),
        "data": json.dumps(data.facts()),
        "figures": as_json(figures),
    }
    checkpoints.save(network, folder.best, facts)
    folder.write_results(as_json(results))
    return results


def answers_of(
    network: AnchorNetwork,
    temperature: float,
    data: Data,
    device: torch.device,
    settings: FinetuneSettings,
) -> Answers:
    """Return what a whole network says of the judged faces, as `annotate` would."""
    want = DetectSettings(long_side=settings.features.long_side, face_threshold=FACE_SCORE)
    detector = Detector(copy.deepcopy(network), want, device)
    faces = data.judged[1]
    logits = np.full((len(faces), 2), np.nan)
    score, face_px = np.zeros(len(faces)), np.full(len(faces), np.nan)
    pictures = by_picture([data.samples[i].path for i in faces])
    for chunk, images in read_chunks(pictures, settings.workers):
        for picture, image, found in zip(chunk, images, detector(images), strict=True):
            height, width = image.shape[:2]
            shrunk = detector.input_size_wh(width, height)[0] / width
            for row in picture.samples:
                at = _face_of(data.samples[faces[row]], found.boxes)
                if at is None:
                    continue
                female = float(found.female[at].clip(1e-6, 1 - 1e-6))
                logits[row] = np.log(female), np.log1p(-female)
                score[row] = found.scores[at]
                x1, y1, x2, y2 = found.boxes[at].tolist()
                face_px[row] = max(x2 - x1, y2 - y1) * shrunk
    # the detector divides by the temperature of the network it was given: none was
    return Answers(logits, data.labels[faces], score, face_px, faces).tempered(temperature)


def _face_of(sample: Sample, boxes: NDArray[np.float32]) -> int | None:
    """Return which of the found boxes [N, 4], surest first, is the sample's face."""
    if not len(boxes):
        return None
    if sample.box is None:
        return 0
    overlap = iou(np.array([sample.box], np.float32), boxes)[0]
    return int(overlap.argmax()) if overlap.max() >= SAME_FACE else None


def _train_settings(settings: FinetuneSettings) -> TrainSettings:
    want = settings.joint
    return TrainSettings(
        steps=want.steps,
        batch=want.batch,
        side=want.side,
        optimizer=settings.optimizer,
        learning_rate=settings.highest_rate,
        weight_decay=settings.decay,
        seed=settings.seed,
        ema=0.99,  # a run is short
        validate_minutes=2.0,
        loss=LossSettings(gender=want.gender_weight, gender_smoothing=settings.loss.smoothing),
    )


def _write_side(
    folder: Path,
    samples: Sequence[Sample],
    trained: Trained,
    device: torch.device,
    settings: FinetuneSettings,
) -> None:
    """Write a side of the data as JSON Lines, other faces marked as ignored."""
    want = DetectSettings(long_side=settings.features.long_side, face_threshold=OTHERS)
    detector = Detector(copy.deepcopy(trained.network), want, device)
    lines = []
    for chunk, images in read_chunks(by_picture([s.path for s in samples]), settings.workers):
        for picture, found in zip(chunk, detector(images), strict=True):
            here = [samples[i] for i in picture.samples]
            faces, rest = _labelled(here, found.boxes)
            faces += [{"box": box.tolist(), "ignore": True} for box in rest]
            if any("gender" in face for face in faces):
                line: dict[str, Any] = {"image": str(picture.path.resolve()), "faces": faces}
                line |= {"width": here[0].width, "height": here[0].height}
                lines.append(json.dumps(line) + "\n")
    folder.mkdir(exist_ok=True)
    (folder / FILE_NAME).write_text("".join(lines), encoding="utf-8")


def _labelled(
    samples: Sequence[Sample], found: NDArray[np.float32]
) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
    """Return the labelled faces of a picture, and the boxes [N, 4] of all others in it."""
    faces = []
    for sample in samples:
        box = sample.box
        if box is None and len(found):  # the whole picture shows one face: the surest one
            box = tuple(found[0].tolist())
        if box is not None:
            faces.append({"box": list(box), "gender": GENDERS[sample.label]})
    if not faces or not len(found):
        return faces, found[:0]
    boxes = np.array([face["box"] for face in faces], np.float32)
    return faces, found[(iou(boxes, found) < SAME_FACE).all(0)]


def _results(
    request: Request,
    settings: FinetuneSettings,
    folder: FinetuneFolder,
    trained: Trained,
    before: tuple[Answers, float | None],
    after: tuple[Answers, float | None],
) -> dict[str, Any]:
    """Return what the report draws."""
    record = folder.joint / "run" / "metrics.jsonl"
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    rows = [row for line in lines if (row := json.loads(line)).get("kind") == "validation"]
    history = [
        {
            "epoch": number,
            "step": row["step"],
            "val_accuracy": row.get("gender_portraits"),
            "average_precision": row.get("ap_16px"),
        }
        for number, row in enumerate(rows, 1)
    ]
    scores = [row.get("score", 0.0) for row in rows]
    results: dict[str, Any] = {
        "title": f"joint training of {trained.network.name}, from {request.weights.name}",
        "recipe": settings.recipe,
        "task": "gender",
        "model": trained.network.name,
        "column": request.data.labelled.column,
        "labels": list(GENDERS),
        "outcome": "finished",
        "weights": str(folder.best),
        "command": f"videogender annotate VIDEO --weights {folder.best}",
        "notes": [
            "average precision is of faces of at least 16 px, in "
            + (settings.joint.val_scenes or "the pictures of val, where other faces are ignored")
        ],
        "settings": flat(settings),
        "epochs": history,
        "best_epoch": int(np.argmax(scores)) + 1 if scores else None,
        "data": request.data.described(),
    }
    results |= compare(request.data, before[0], after[0])
    results["by_size"] = by_size(after[0], request.data.persons())
    results["before"]["average_precision"] = before[1]
    results["after"]["average_precision"] = after[1]
    return results
