"""What is put over faces in training, and what is hidden around them."""

from __future__ import annotations

import math

import numpy as np
import torch

from videogender.training.augment import augment, hide_surroundings
from videogender.training.crops import Targets

SIDE = 80
BOX = torch.tensor([16.0, 16.0, 64.0, 64.0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int) -> torch.Tensor:
    """Pictures whose pixels are 90 within the face and 200 around it."""
    images = torch.full((count, 3, SIDE, SIDE), 200, dtype=torch.uint8)
    images[:, :, 16:64, 16:64] = 90
    return images.contiguous(memory_format=torch.channels_last)


def test_surroundings_are_hidden_of_some_and_faces_of_none() -> None:
    count = 400
    boxes = BOX.repeat(count, 1)
    boxes[::4] = math.nan  # no face
    before = pictures(count)
    after = hide_surroundings(before.clone(), boxes, generator())
    assert torch.equal(after[:, :, 16:64, 16:64], before[:, :, 16:64, 16:64])
    hidden = (after[:, :, 0, 0] != 200).any(1)
    assert not hidden[::4].any()
    assert abs(float(hidden.sum()) / 300 - 0.3) < 0.08
    for image in after[hidden]:
        colour = image[:, 0, 0]
        # all one colour up to the face, or to a rim about it
        assert (image[:, :8] == colour[:, None, None]).all()
        assert (image[:, :, 72:] == colour[:, None, None]).all()
    assert torch.equal(after[~hidden], before[~hidden])
    none = hide_surroundings(before.clone(), boxes, generator(), strength=0.0)
    assert torch.equal(none, before)


def test_patches_lie_on_faces_as_masks_and_over_them_as_hats() -> None:
    count = 600
    targets = Targets(
        BOX.repeat(count, 1)[:, None],
        torch.zeros(count, 1, dtype=torch.long),
        torch.zeros(count, 1, dtype=torch.bool),
        torch.ones(count, 1, dtype=torch.bool),
    )
    flat = torch.full((count, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    flat = flat.contiguous(memory_format=torch.channels_last)
    # weak distortion draws few patches, but leaves colours nearly as they were
    after = augment(flat, targets, generator(1), strength=0.3)
    hats = masks = 0
    for image in after:
        odd = (image - image[:, -1:, -1:]).abs().amax(0) > 60
        if odd.float().mean() < 0.01:
            continue
        where = np.argwhere(odd.numpy())
        top, bottom = where[:, 0].min(), where[:, 0].max()
        if top == 0:
            hats += 1
            assert bottom <= 16 + 0.32 * 48
        elif top >= 16 and bottom < 64:
            masks += 1
    assert hats > 10
    assert masks > 10
