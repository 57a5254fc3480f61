"""Genders of faces that nobody noted, guessed by the second stage that training starts from.

A network that learns from its own guesses on close-ups that are distorted gets better than the one
that guessed (arXiv 1911.04252), and most faces of the scenes have no gender.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from videogender.errors import TrainingError
from videogender.network.second_stage import SecondStage
from videogender.training.candidates import faces_of, seen_faces
from videogender.training.data import ImageStore
from videogender.training.lessons import ask
from videogender.training.settings import CloseUpSettings

__all__ = ["Guesses"]


@dataclass(frozen=True, slots=True)
class Guesses:
    """What is guessed of faces of a store.

    Attributes:
        face: int64 [N], of the store.
        gender: int64 [N], 0 female, 1 male.
    """

    face: Tensor
    gender: Tensor

    @classmethod
    def make(cls, store: ImageStore, look: SecondStage, settings: CloseUpSettings) -> Guesses:
        """Guess where nobody noted a gender and the second stage is sure of one.

        Args:
            store: the pictures.
            look: a trained second stage, in evaluation mode.
            settings: of how large faces, and how sure it has to be.
        """
        faces, which = faces_of(store), seen_faces(store)
        side = (faces.box[:, 2:] - faces.box[:, :2]).amax(1)
        asked_for = faces.male.isnan() & (faces.image < len(store.scene_ids))
        asked_for &= (side >= settings.least_guessed_px) & ~store.young[which]
        faces, which = faces.select(asked_for), which[asked_for]
        if not len(faces):
            return cls(which, faces.gender)
        generator = torch.Generator(store.boxes.device).manual_seed(0)
        # each of the two draws shows half of the faces mirrored
        logits = torch.stack([ask(look, store, faces, generator).gender for _ in range(2)]).mean(0)
        chance, gender = logits.softmax(1).max(1)
        sure = chance >= settings.guess_from
        return cls(which[sure], gender[sure])

    def put_into(self, store: ImageStore) -> None:
        """Have a store teach them as if they were labels."""
        store.gender[self.face] = self.gender
        store.male[self.face] = self.gender.float()

    def packed(self) -> bytes:
        """Return what `load` reads, so that a run that goes on learns from the same."""
        packed: bytes = save({"face": self.face, "gender": self.gender})
        return packed

    @classmethod
    def load(cls, path: Path) -> Guesses:
        """Read a file of what `packed` returned.

        Raises:
            TrainingError: if that fails.
        """
        try:
            found = load_file(path)
            return cls(found["face"], found["gender"])
        except Exception as error:  # a damaged file can end in any of them
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrainingError(f"{path}: cannot be read ({reason})") from error
