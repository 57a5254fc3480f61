"""What cameras and codecs do to pixels: colour, gamma, blur, noise, block artefacts, masks.

Everything works on float BGR batches [B, 3, H, W] of 0 to 255, on any device; effects that are rare
touch only the images that were drawn for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from videogender.training.crops import Targets
from videogender.training.sampling import quiet_opencv

__all__ = ["apply_colour", "augment", "hide_surroundings", "jpeg_noise"]

# ITU-R BT.601 luma, in BGR order
LUMA_BGR = (0.114, 0.587, 0.299)


def augment(
    images: Tensor, targets: Targets, generator: torch.Generator, strength: float = 1.0
) -> Tensor:
    """Distort a batch.

    Args:
        images: uint8 [B, 3, S, S] BGR, channels last in memory; may be written to.
        targets: its faces; some get a patch, as a mask, a hand or a hat would be.
        generator: random numbers, on the same device.
        strength: 0 to 1; each effect comes that much as often, and colours stray that much as far.

    Returns:
        float32 [B, 3, S, S] BGR of 0 to 255.
    """
    device, count = images.device, len(images)

    def uniform(low: float, high: float, n: int = count) -> Tensor:
        return torch.rand(n, device=device, generator=generator) * (high - low) + low

    def some(share: float) -> Tensor:
        drawn = torch.rand(count, device=device, generator=generator) < share * strength
        return drawn.nonzero().squeeze(1)

    matrix, offset = _draw_colour(uniform, device, strength)
    out = apply_colour(_patch_faces(images, targets, generator, strength), matrix, offset)
    if len(which := some(0.15)):
        gamma = torch.exp(uniform(-0.6, 0.6, len(which)))[:, None, None, None]
        out[which] = (out[which] / 255).pow(gamma) * 255
    if len(which := some(0.12)):
        out[which] = _blur(out[which], uniform(0.5, 2.2, len(which)))
    if len(which := some(0.15)):
        deviation = uniform(2.0, 14.0, len(which))[:, None, None, None]
        shape = out[which].shape
        out[which] += torch.randn(shape, device=device, generator=generator) * deviation
    if len(which := some(0.12)) and images.shape[2] % 8 == 0:
        out[which] = jpeg_noise(out[which].clamp(0, 255), uniform(12, 70, len(which)))
    return out.clamp_(0, 255)


def _draw_colour(
    uniform: Callable[[float, float], Tensor], device: torch.device, strength: float
) -> tuple[Tensor, Tensor]:
    """Draw one affine colour map an image: contrast, brightness, saturation, tint, grey."""

    def about(middle: float, reach: float) -> Tensor:
        return middle + strength * uniform(-reach, reach)

    contrast, saturation, brightness = about(1, 0.35), about(1, 0.5), about(0, 28)
    grey = uniform(0, 1) < 0.08 * strength  # some cameras see no colour
    saturation = torch.where(grey, 0.0, saturation)
    tint = torch.stack([about(1, 0.15) for _ in range(3)], 1)
    luma = torch.tensor(LUMA_BGR, device=device).expand(3, 3)
    mix = luma + saturation[:, None, None] * (torch.eye(3, device=device) - luma)
    matrix = mix * (tint * contrast[:, None])[:, :, None]
    offset = (128 * (1 - contrast) + brightness)[:, None].expand(-1, 3)
    return matrix, offset


def apply_colour(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Map colours, one affine map an image.

    Args:
        images: uint8 [B, 3, H, W], channels last in memory.
        matrix, offset: float [B, 3, 3] and [B, 3].

    Returns:
        float32 [B, 3, H, W] of 0 to 255, channels last in memory.
    """
    pixels = images.permute(0, 2, 3, 1)
    if images.device.type == "cpu" and (cv2 := quiet_opencv()) is not None:
        out = np.empty(pixels.shape, np.uint8)
        maps = torch.cat([matrix, offset[:, :, None]], 2).numpy()
        for source, map_, target in zip(pixels.numpy(), maps, out, strict=True):
            cv2.transform(source, map_, dst=target)
        return torch.from_numpy(out).float().permute(0, 3, 1, 2)
    mapped = torch.einsum("bij,bhwj->bhwi", matrix, pixels.float()) + offset[:, None, None, :]
    return mapped.clamp_(0, 255).permute(0, 3, 1, 2)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, one width an image."""
    n, channels, height, width = images.shape
    reach = torch.arange(-5, 6, device=images.device)
    kernel = torch.exp(-(reach**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(images.reshape(1, n * channels, height, width), [5] * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, :, None, :], groups=n * channels)
    flat = F.conv2d(flat, kernel[:, :, :, None], groups=n * channels)
    return flat.reshape(n, channels, height, width)


def jpeg_noise(images: Tensor, quality: Tensor) -> Tensor:
    """Quantise 8 × 8 blocks of the cosine transform, as JPEG and the video codecs do.

    Args:
        images: float [B, 3, H, W] of 0 to 255, sides divisible by 8.
        quality: float [B], 1 to 100 on libjpeg's scale; one step table serves all channels.
    """
    n, channels, height, width = images.shape
    k = torch.arange(8, device=images.device, dtype=torch.float32)
    basis = torch.cos((2 * k[None, :] + 1) * k[:, None] * math.pi / 16) / 2  # DCT-II, orthonormal
    basis[0] /= math.sqrt(2)
    # libjpeg's luma table rises nearly linearly with frequency; this plane fits it to a few units
    steps = 10 + 6.5 * (k[:, None] + k[None, :])
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    steps = steps * scale[:, None, None, None, None, None]
    blocks = images.reshape(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4) - 128
    frequencies = basis @ blocks @ basis.T
    blocks = basis.T @ (torch.round(frequencies / steps) * steps) @ basis + 128
    return blocks.transpose(3, 4).reshape(n, channels, height, width)


def hide_surroundings(
    images: Tensor, boxes: Tensor, generator: torch.Generator, strength: float = 1.0
) -> Tensor:
    """Leave of some pictures nothing but the face.

    Hair, hats and clothes say much about gender in the data, and mislead about whoever wears them
    otherwise.

    Args:
        images: uint8 [B, 3, S, S]; may be written to.
        boxes: float [B, 4], the face of each, xyxy in its pixels; NaN for none.
        generator: random numbers, on the same device.
        strength: 0 to 1, how often.
    """
    count, device = len(images), images.device
    draw = torch.rand(count, 5, device=device, generator=generator)
    wh = boxes[:, 2:] - boxes[:, :2]
    rim = wh * (0.15 * draw[:, 1:2])
    which = ((draw[:, 0] < 0.3 * strength) & (wh.amin(1) > 0)).nonzero().squeeze(1)
    face = _within((boxes[:, :2] - rim)[which], (boxes[:, 2:] + rim)[which], images.shape[2])
    colour = (draw[which, 2:] * 255).to(images.dtype)[:, :, None, None]
    images[which] = torch.where(face, images[which], colour)
    return images


def _patch_faces(
    images: Tensor, targets: Targets, generator: torch.Generator, strength: float
) -> Tensor:
    """Cover part of one face in some canvases with a plain colour, as masks, hands and hats do."""
    device, count = images.device, len(images)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device, generator=generator)

    pick = (uniform(count) * targets.valid.sum(1)).long()
    box = targets.boxes[torch.arange(count, device=device), pick]
    wh = box[:, 2:] - box[:, :2]
    # a rectangle of 30 to 70 % of the face's width and height, anywhere on it but mostly low
    part, free = 0.3 + 0.4 * uniform(count, 2), uniform(count, 2)
    free[:, 1] = free[:, 1].sqrt()
    low = box[:, :2] + free * (1 - part) * wh
    high = low + part * wh
    # or all from well above the face down to its brow
    hat = (uniform(count) < 0.5)[:, None]
    brow = box[:, 1] + wh[:, 1] * (0.05 + 0.25 * uniform(count))
    low = torch.where(hat, box[:, :2] - wh * wh.new_tensor([0.3, 0.7]), low)
    high = torch.where(hat, torch.stack([box[:, 2] + 0.3 * wh[:, 0], brow], 1), high)
    which = ((uniform(count) < 0.35 * strength) & (wh.amin(1) > 16)).nonzero().squeeze(1)
    if len(which) == 0:
        return images
    cover = _within(low[which], high[which], images.shape[2])
    colour = (uniform(len(which), 3, 1, 1) * 255).to(images.dtype)
    images[which] = torch.where(cover, colour, images[which])
    return images


def _within(low: Tensor, high: Tensor, side: int) -> Tensor:
    """Return which pixels lie in boxes from corners [K, 2] to corners [K, 2], [K, 1, S, S]."""
    step = torch.arange(side, device=low.device)
    across = (step >= low[:, :1]) & (step < high[:, :1])
    down = (step >= low[:, 1:]) & (step < high[:, 1:])
    return (down[:, :, None] & across[:, None, :])[:, None]
