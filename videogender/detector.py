"""Images in, faces out: the one place where pixels become tensors and logits become `Faces`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videogender.backends import RUNTIMES, choose_engine
from videogender.config import DetectSettings
from videogender.devices import choose_device, choose_dtype
from videogender.errors import ModelError
from videogender.frames import Faces, Frame, Picture, as_picture
from videogender.network.attributes import AttributeHeads
from videogender.network.heads import FEMALE, MALE, VOTES, AnchorNetwork, Predictions
from videogender.network.second_stage import SecondOpinion, SecondStage
from videogender.network.trained import GENDERS
from videogender.proposals import (
    MOST_PROPOSALS,
    ZOOMS,
    Anchors,
    Judge,
    Proposals,
    Shown,
    propose,
    rank_within,
    seen_close_up,
    still_faces,
)

PAD_MULTIPLE = 32  # inputs are padded to it, so that neighbouring sizes share one shape
# On a CPU two batches side by side, each in a thread of its own, are done sooner than one after the
# other by two threads: much around the convolutions does not divide.
MOST_WORKERS = 4
# Least score of what the first stage proposes. With less, a few more small faces are found, and
# close-ups of what is none come to cost more than the first stage itself.
PROPOSED_FROM = 0.06

# Taps, image index [K] and anchor index [K] to logits [K, C].
Asked = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]

__all__ = ["Detector", "padded_hw"]


class Detector:
    """Finds faces and their presented gender in pictures.

    Build it with `Detector.load`, or around a network for evaluation and tests.

    Args:
        network: a trained network in evaluation mode; it is changed for inference (normalisation
            folded, input turned from BGR to RGB), so hand in one that nobody else uses.
        settings: thresholds, sizes, precision.
        device: where to run.
        temperature: gender logits are divided by it, from calibration on held-out faces.
        head: a fine-tuned head beside the network, or None; not to be used elsewhere either.
        classes: the head's; female and male let it answer in place of the network's gender heads.
        head_temperature: the head's logits are divided by it, unless they are genders.
        weights_sha256: of the file that the network came from; another backend's graph is kept
            under it.

    Attributes:
        threads: of PyTorch, as it was built.
        backend: what computes the network: `torch`, or the name of another runtime.
        takes_pixels: whether that reads uint8 pixels as they are, and computes in integers.
        forward: its forward pass; usually `network` itself in another form.
        judge: the network's second stage, if it has one.
    """

    def __init__(
        self,
        network: AnchorNetwork,
        settings: DetectSettings | None = None,
        device: torch.device | None = None,
        temperature: float = 1.0,
        *,
        head: AttributeHeads | None = None,
        classes: tuple[str, ...] = (),
        head_temperature: float = 1.0,
        weights_sha256: str | None = None,
    ) -> None:
        self.settings = settings or DetectSettings()
        self.device = device or torch.device("cpu")
        precision, backend = self.settings.precision, self.settings.backend
        if precision == "auto" and backend in RUNTIMES:
            precision = "fp32"
        self.dtype = choose_dtype(precision, self.device)
        self.model_name = network.name
        self.has_gender = network.has_gender or (head is not None and classes == GENDERS)
        self.classes = () if head is None or classes == GENDERS else classes
        self.temperature, self.head_temperature = temperature, head_temperature
        self.threads = torch.get_num_threads()
        self.network = _for_inference(network).to(self.device)
        mean_rgb = network.pixel_mean_bgr[::-1]
        engine = choose_engine(
            backend,
            precision,
            self.network,
            mean_rgb,
            self.dtype,
            threads=self.threads,
            weights_sha256=weights_sha256,
        )
        self.backend, self.forward = engine.name, engine.forward
        self.takes_pixels = engine.takes_pixels
        self.head = None if head is None else head.to(self.device, self.dtype)
        if self.device.type == "cpu":
            # glibc maps large blocks anew each time until it has seen one of this size freed
            torch.empty(31 * 2**20, dtype=torch.uint8)
        # after `_for_inference` the network takes RGB minus this mean, unscaled
        self._mean_rgb = torch.tensor(mean_rgb, device=self.device)
        self._mean_row = torch.zeros(0, device=self.device, dtype=self.dtype)
        self._zooms: Sequence[float] = ZOOMS
        self.judge: Judge | None = None
        if (stage := self.network.second_stage) is not None:
            self.judge = engine.judge or partial(self._judged, stage)

    @classmethod
    def load(
        cls,
        model: str | None = None,
        *,
        weights: str | Path | None = None,
        device: str | None = None,
        settings: DetectSettings | None = None,
    ) -> Detector:
        """Load a model and its weights.

        Args:
            model: `lite` or `vgg16`; given, it overrides the settings, as do the next two.
            weights: a `.safetensors` file instead of the model's own.
            device: `auto`, `cpu`, `cuda` or `mps`.
            settings: everything else.

        Raises:
            ModelError: if the model is unknown, or its weights are missing, corrupt, or such as
                classify whole pictures.
            ConfigError: if the backend that was asked for is missing or cannot be had here.
            DeviceError: if the device that was asked for is missing.
        """
        from videogender.network import checkpoints
        from videogender.weights_store import resolve, sha256_of

        settings = settings or DetectSettings()
        settings = replace(
            settings,
            model=model or settings.model,
            weights=str(weights) if weights else settings.weights,
            device=device or settings.device,
        )
        where = choose_device(settings.device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        trained = checkpoints.load_trained(resolve(settings.model, settings.weights))
        digest = sha256_of(trained.path) if settings.backend != "torch" else None
        facts, head = trained.facts, trained.head
        if facts.task == "classifier":
            raise ModelError(
                f"{trained.path}: classifies whole pictures; use videogender classify with it"
            )
        return cls(
            trained.network,
            settings,
            where,
            facts.gender_temperature,
            # the head of a second look is for `refine`: this network finds faces without it
            head=head if isinstance(head, AttributeHeads) else None,
            classes=facts.labels,
            head_temperature=facts.temperature,
            weights_sha256=digest,
        )

    @property
    def batch_size(self) -> int:
        """Frames a forward pass takes together."""
        if self.settings.batch_size:
            return self.settings.batch_size
        return 4 if self.device.type == "cpu" else 32

    @property
    def face_threshold(self) -> float:
        """Least score of the faces that are reported."""
        return self.settings.face_threshold

    def at_threshold(self, face_threshold: float, *, follows: bool = False) -> Detector:
        """Return this detector with another face threshold; both share one network.

        Args:
            face_threshold: least score of the faces that it reports.
            follows: what it finds is followed through a video, and so seen again: faces whose
                gender is open get no views of other sizes, which cost more than they tell there.
        """
        other = copy.copy(self)
        other.settings = replace(self.settings, face_threshold=face_threshold)
        other._zooms = () if follows else ZOOMS
        return other

    def describe(self) -> str:
        """Say what runs where, such as `lite, onnxruntime, cpu, fp32, 2 threads`.

        PyTorch is named only where it could have been another backend.
        """
        names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        where = str(self.device)
        if self.device.type == "cuda":
            where += f" ({torch.cuda.get_device_name(self.device)})"
        parts = [self.model_name, where, "int8" if self.takes_pixels else names[self.dtype]]
        if self.settings.backend != "torch":
            parts.insert(1, self.backend)
        if self.device.type == "cpu":
            parts.append(f"{self.threads} threads")
        return ", ".join(parts)

    @property
    def workers(self) -> int:
        """How many threads should ask it at the same time, if there are batches for all."""
        is_alone = self.device.type != "cpu" or self.backend != "torch"
        return 1 if is_alone else min(MOST_WORKERS, self.threads)

    @contextmanager
    def worker_threads(self) -> Iterator[Executor]:
        """Run threads that ask it, among which PyTorch's own are divided."""
        share = max(1, self.threads // self.workers)
        pool = ThreadPoolExecutor(
            self.workers, "videogender-look", initializer=torch.set_num_threads, initargs=(share,)
        )
        try:
            with pool:
                yield pool
        finally:
            # what a thread sets holds for it and for all that begin later
            torch.set_num_threads(self.threads)

    def input_size_wh(self, width: int, height: int) -> tuple[int, int]:
        """Return the size (width, height) at which a picture of this size is looked at.

        Pictures larger than `long_side` shrink to it; smaller ones stay as they are.
        """
        longest = max(width, height)
        if not self.settings.long_side or longest <= self.settings.long_side:
            return width, height
        scale = self.settings.long_side / longest
        return max(1, round(width * scale)), max(1, round(height * scale))

    def __call__(self, images: Sequence[NDArray[np.uint8] | Frame | Picture]) -> list[Faces]:
        """Find the faces of each picture.

        Args:
            images: HWC uint8 **RGB** arrays, frames or pictures, of any sizes.

        Returns:
            One `Faces` a picture, in order, boxes in its own pixels.
        """
        found: list[Faces] = []
        for start in range(0, len(images), self.batch_size):
            pictures = [as_picture(image) for image in images[start : start + self.batch_size]]
            scaled = [p.to_rgb(self.input_size_wh(p.width, p.height)) for p in pictures]
            found.extend(self.detect_pictures(scaled, pictures))
        return found

    def detect(
        self, scaled: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[Faces]:
        """Find faces in pictures that already have the network's size.

        Args:
            scaled: HWC uint8 **RGB**, each of `input_size_wh` of its source.
            sizes_wh: width and height of each source, whose pixels the boxes are in.
        """
        return self._by_shape([Shown(*each) for each in zip(scaled, sizes_wh, strict=True)])

    def detect_pictures(
        self, scaled: Sequence[NDArray[np.uint8]], pictures: Sequence[Picture]
    ) -> list[Faces]:
        """Find faces as `detect` does; the second stage sees the pictures as they were decoded.

        Args:
            scaled: HWC uint8 **RGB**, each of `input_size_wh` of its picture.
            pictures: what they were scaled from.
        """
        return self._by_shape(
            [
                Shown(image, (picture.width, picture.height), picture)
                for image, picture in zip(scaled, pictures, strict=True)
            ]
        )

    def _by_shape(self, shown: Sequence[Shown]) -> list[Faces]:
        """Look at pictures of one padded shape together."""
        result: list[Faces] = [Faces.empty()] * len(shown)
        shapes = [padded_hw(each.pixels) for each in shown]
        for shape in dict.fromkeys(shapes):
            members = [i for i, s in enumerate(shapes) if s == shape]
            found = self._detect_batch([shown[i] for i in members], shape)
            for i, faces in zip(members, found, strict=True):
                result[i] = faces
        return result

    @torch.inference_mode()
    def _detect_batch(self, batch: Sequence[Shown], padded_hw: tuple[int, int]) -> list[Faces]:
        pictures = self._tensor([shown.pixels for shown in batch], padded_hw)
        predictions = self.forward(pictures)
        anchors = propose(predictions, _logit(self._proposed_from), self.settings.nms_iou)
        if self.judge is None:
            found = anchors.voted()
        else:
            anchors.stay(rank_within(anchors.image[anchors.keep]) < MOST_PROPOSALS)
            found = self.close_up(anchors.voted(), batch)
            stays = still_faces(found, self.settings.face_threshold, self.settings.nms_iou)
            anchors.stay(stays)
            found = found.select(stays)
        labels = self._labels(predictions, anchors, found)
        rows = torch.cat([found.image[:, None], found.boxes, found.scores[:, None], *labels], 1)
        rows = rows[found.scores.argsort(descending=True, stable=True)]
        # one transfer a batch: a GPU is waited for once
        return self._by_image(rows.cpu().numpy(), batch)

    def close_up(self, proposals: Proposals, batch: Sequence[Shown]) -> Proposals:
        """Show proposals to the second stage; return what both stages say."""
        assert self.judge is not None
        assert self.network.second_stage is not None
        face_mix = self.network.second_stage.face_mix
        return seen_close_up(self.judge, face_mix, proposals, batch, self._zooms)

    def _judged(self, stage: SecondStage, crops: Tensor) -> SecondOpinion:
        """Let a second stage in floating point judge crops, uint8 [K, S, S, 3] RGB."""
        pixels = crops.to(self.dtype, memory_format=torch.contiguous_format)
        found: SecondOpinion = stage(self._less_mean(pixels).permute(0, 3, 1, 2))
        return found

    @property
    def _proposed_from(self) -> float:
        """Least score of what the first stage proposes; the second may raise it."""
        threshold = self.settings.face_threshold
        return threshold if self.judge is None else min(threshold, PROPOSED_FROM)

    def _labels(self, predictions: Predictions, anchors: Anchors, found: Proposals) -> list[Tensor]:
        """Return for the K faces the probability of female [K, 1], and of each class [K, C].

        The best anchors of a face, kept and suppressed, answer together, weighted by face score.
        """
        faces, owner = anchors.keep.nonzero().squeeze(1), anchors.owner
        asked = (anchors.keep[owner] & (rank_within(owner) < VOTES)).nonzero().squeeze(1)
        image, anchor, weight = anchors.image[asked], anchors.anchor[asked], anchors.score[asked]
        total = torch.zeros_like(anchors.score).index_add_(0, owner[asked], weight)

        def together(ask: Asked) -> Tensor:
            answers = ask(predictions.features, image, anchor).float()
            voted = answers.new_zeros(len(owner), answers.shape[1])
            voted.index_add_(0, owner[asked], weight[:, None] * answers)
            return voted[faces] / total[faces, None]

        labels = [torch.full((len(faces), 1), math.nan, device=weight.device)]
        if self.has_gender and len(faces):
            old, new, shift = 1.0, 0.0, 0.0
            if self.network.second_stage is not None:
                old, new, shift = self.network.second_stage.gender_mix.tolist()
            margin = torch.full((len(faces),), shift, device=weight.device)
            if old:
                of_head = self.head if not self.classes else None
                logits = together(of_head or self.network.gender_logits)
                margin += old * (logits[:, FEMALE] - logits[:, MALE])
            if found.close_up is not None:
                margin += new * found.close_up
            margin /= self.temperature
            labels = [margin.sigmoid()[:, None]]
        if self.classes and self.head is not None:
            labels.append((together(self.head) / self.head_temperature).softmax(1))
        return labels

    def _by_image(self, rows: NDArray[np.float32], batch: Sequence[Shown]) -> list[Faces]:
        """Hand faces [K, 7 + C] (image, box, score, female, classes) to their images."""
        found = []
        for index, shown in enumerate(batch):
            mine = rows[rows[:, 0] == index]
            (width, height), (high, wide) = shown.size_wh, shown.pixels.shape[:2]
            across, down = width / wide, height / high
            mine[:, 1:5] *= np.array([across, down, across, down], np.float32)
            mine = mine[mine[:, 4] - mine[:, 2] >= self.settings.min_face_px]
            faces = Faces(mine[:, 1:5].copy(), mine[:, 5].copy(), mine[:, 6].copy())
            if self.classes:
                faces = replace(faces, attributes=mine[:, 7:].copy(), classes=self.classes)
            found.append(faces)
        return found

    def _tensor(self, batch: Sequence[NDArray[np.uint8]], padded_hw: tuple[int, int]) -> Tensor:
        """Return network input [B, 3, H, W]: mean subtracted, zeros where padded.

        Where it takes pixels, they stay as they are, and the mean stands where padded.
        """
        height, width = padded_hw
        dtype = torch.uint8 if self.takes_pixels else self.dtype
        out = torch.empty(len(batch), height, width, 3, device=self.device, dtype=dtype)
        mean = self._mean_of(width).view(width, 3)
        for row, image in zip(out, batch, strict=True):
            h, w = image.shape[:2]
            # torch refuses to look at read-only memory without a warning; copies are rare here
            pixels = torch.from_numpy(image if image.flags.writeable else image.copy())
            row[:h, :w].copy_(pixels, non_blocking=True)
            row[h:] = mean
            row[:h, w:] = mean[w:]
        return (out if self.takes_pixels else self._less_mean(out)).permute(0, 3, 1, 2)

    def _less_mean(self, pixels: Tensor) -> Tensor:
        """Subtract the mean from pixels [B, H, W, 3] in the network's own format, in place.

        They have to lie in memory as their shape says.
        """
        pixels.view(*pixels.shape[:2], -1).sub_(self._mean_of(pixels.shape[2]))
        return pixels

    def _mean_of(self, width: int) -> Tensor:
        """Return a row of pixels that have the mean, [3 width]: single ones are slow to handle."""
        if len(self._mean_row) < width * 3:
            self._mean_row = self._mean_rgb.to(self.dtype).repeat(width)
        return self._mean_row[: width * 3]


def padded_hw(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the height and width to which a picture is padded."""
    height, width = image.shape[:2]
    return (
        math.ceil(height / PAD_MULTIPLE) * PAD_MULTIPLE,
        math.ceil(width / PAD_MULTIPLE) * PAD_MULTIPLE,
    )


def _logit(probability: float) -> float:
    """Return the log-odds, finite also at 0 and 1."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


def _for_inference(network: AnchorNetwork) -> AnchorNetwork:
    """Fold what can be folded, and make the first convolution read RGB instead of BGR."""
    network = network.eval().requires_grad_(False)
    network.fuse()
    readers = [network.input_convolution]
    if network.second_stage is not None:
        network.second_stage.fuse()
        readers.append(network.second_stage.input_convolution)
    for first in readers:
        first.weight = nn.Parameter(first.weight.flip(1), requires_grad=False)
    return network
