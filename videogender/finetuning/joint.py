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
from videogender.evaluation.validation import Validation, ValidationData, validate
from videogender.finetuning.datasets import Sample
from videogender.finetuning.folder import FinetuneFolder
from videogender.finetuning.loop import Progress as Learned
from videogender.finetuning.request import Request, Watcher
from videogender.finetuning.results import as_json
from videogender.finetuning.settings import FinetuneSettings
from videogender.finetuning.trunk import by_picture, read_chunks
from videogender.network import checkpoints
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
    for side in ("train", "val", "test"):
        samples = [data.samples[i] for i in getattr(data, side)]
        _write_side(folder.joint / side, samples, trained, device, settings)
    sides = {s: folder.joint / s for s in ("train", "val", "test")}
    val_scenes = [Path(want.val_scenes)] if want.val_scenes else [sides["val"]]
    judged = ValidationData(
        [e for path in val_scenes for e in read_entries(path)], read_entries(sides[data.judged[0]])
    )
    temperature = trained.facts.gender_temperature
    before = validate(trained.network, judged, device, temperature)
    watcher.say(f"before: {_line(before)}")

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
        resume=request.resume and (folder.joint / "run" / "last.pt").is_file(),
        force=request.force,
        say=watcher.say,
        report=tell,
    )
    network, metadata = checkpoints.load(best)
    after = validate(network, judged, device, float(metadata.get("temperature", "1")))
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
    watcher.say(f"after:  {_line(after)}")
    return results


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
    before: Validation,
    after: Validation,
) -> dict[str, Any]:
    """Return what the report draws."""
    data, (side, faces) = request.data, request.data.judged
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
    return {
        "title": f"joint training of {trained.network.name}, from {request.weights.name}",
        "recipe": settings.recipe,
        "task": "gender",
        "model": trained.network.name,
        "column": data.labelled.column,
        "labels": list(GENDERS),
        "outcome": "finished",
        "weights": str(folder.best),
        "command": f"videogender annotate VIDEO --weights {folder.best}",
        "judged_on": f"{side}: {len(faces)} faces not trained on",
        "notes": [
            "average precision is of faces of at least 16 px, in "
            + (settings.joint.val_scenes or "the pictures of val, where other faces are ignored")
        ],
        "settings": flat(settings),
        "epochs": history,
        "best_epoch": int(np.argmax(scores)) + 1 if scores else None,
        "before": _figures(before),
        "after": _figures(after),
        "data": data.described(),
    }


def _figures(found: Validation) -> dict[str, Any]:
    gender, result = found.portraits, dict[str, Any]()
    if gender is not None and gender.faces:
        result = {
            "faces": gender.faces,
            "found": gender.found,
            "accuracy": gender.accuracy,
            "interval": list(gender.interval),
            "by_label": {"female": gender.accuracy_female, "male": gender.accuracy_male},
            "calibration_error": gender.calibration_error,
        }
    if found.tall is not None:
        result["average_precision"] = found.tall.average_precision
    return result


def _line(found: Validation) -> str:
    figures = _figures(found)
    names = {"average_precision": "AP", "accuracy": "gender"}
    return ", ".join(f"{names[k]} {figures[k]:.3f}" for k in names if k in figures)
