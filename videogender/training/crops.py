"""What a training batch shows: which images, cut where, at which size, and the faces that are left.

A canvas is one tile (a crop of a scene) or a mosaic of g × g tiles (portraits, so that gender is
learned at every size, with scene crops among them). Each tile is one affine map from canvas to
source pixels. All of it is tensor arithmetic over the tiles of a batch, on any device;
`training.sampling` then reads the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from videogender.training.data import PYRAMID_LEVELS, ImageStore
from videogender.training.settings import CropSettings

__all__ = ["CropSettings", "Crops", "Targets", "plan_crops"]


@dataclass(frozen=True, slots=True)
class Targets:
    """The faces of a batch, padded to the most that any canvas has.

    Attributes:
        boxes: float32 [B, M, 4], xyxy in canvas pixels.
        gender: int64 [B, M], 0 female, 1 male, -1 unknown.
        ignore: bool [B, M], counts neither way.
        valid: bool [B, M], False where it is padding.
    """

    boxes: Tensor
    gender: Tensor
    ignore: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True)
class Crops:
    """The tiles of a batch.

    Attributes:
        side: canvas width and height in pixels.
        canvas: int64 [T], which canvas a tile belongs to; tiles of a canvas stand together.
        grid: int64 [B], tiles along a side of each canvas.
        first_tile: int64 [B], where the tiles of a canvas begin.
        corner: float32 [T, 2], the tile's top left in canvas pixels; tile: float32 [T], its side.
        image: int64 [T]; level: int64 [T], the pyramid level to read.
        to_source: float32 [T, 2, 3], canvas pixel (x, y, 1) to level-0 source pixel.
    """

    side: int
    canvas: Tensor
    grid: Tensor
    first_tile: Tensor
    corner: Tensor
    tile: Tensor
    image: Tensor
    level: Tensor
    to_source: Tensor


def plan_crops(
    store: ImageStore,
    canvases: int,
    side: int,
    settings: CropSettings,
    generator: torch.Generator,
) -> tuple[Crops, Targets]:
    """Draw the crops of one batch and carry the faces over.

    Args:
        store: images and faces; the result lives on its device.
        canvases: batch size.
        side: canvas width and height in pixels.
        settings: how crops are drawn.
        generator: random numbers, on the store's device.
    """
    device = store.boxes.device

    def uniform(n: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(n, device=device, generator=generator) * (high - low) + low

    # which canvases are mosaics, and their grids
    mosaic_share = settings.mosaic_share if len(store.portrait_ids) else 0.0
    if not len(store.scene_ids):
        mosaic_share = 1.0
    is_mosaic = uniform(canvases) < mosaic_share
    grids = torch.tensor(settings.mosaic_grids, device=device)
    grid = torch.where(is_mosaic, grids[(uniform(canvases) * len(grids)).long()], 1)
    tiles = grid * grid
    first_tile = tiles.cumsum(0) - tiles
    canvas = torch.repeat_interleave(torch.arange(canvases, device=device), tiles)
    t = len(canvas)
    place = torch.arange(t, device=device) - first_tile[canvas]
    tile = side / grid[canvas].float()
    corner = torch.stack([place % grid[canvas], place // grid[canvas]], 1) * tile[:, None]

    # which image each tile shows, and the face that its crop is about
    share = settings.mosaic_scene_share if len(store.scene_ids) else 0.0
    is_portrait = is_mosaic[canvas] & (uniform(t) >= share)
    image = torch.where(
        is_portrait, pick(store.portrait_ids, uniform(t)), pick(store.scene_ids, uniform(t))
    )
    counts = store.first_face[image + 1] - store.first_face[image]
    about = store.first_face[image] + (uniform(t) * counts).long()
    has_face = counts > 0
    about = torch.where(has_face, about, 0)
    box = store.boxes[about]
    size = store.size_wh[image, 0].float()
    face_height = torch.where(has_face, box[:, 3] - box[:, 1], size.amin(1) / 2).clamp(min=4.0)
    centre = torch.where(
        has_face[:, None],
        (box[:, :2] + box[:, 2:]) / 2,
        torch.stack([uniform(t), uniform(t)], 1) * size,
    )

    # how much each tile enlarges its source
    aimed_low = torch.where(is_portrait, (tile * 0.22).clamp(min=10.0), settings.aimed_face_px[0])
    aimed_high = torch.where(
        is_portrait,
        tile * 0.95,
        torch.minimum(tile * 0.8, tile.new_tensor(settings.aimed_face_px[1])),
    )
    aimed = torch.exp(torch.lerp(aimed_low.log(), aimed_high.log(), uniform(t))) / face_height
    low, high = (math.log(z) for z in settings.native_zoom)
    native = torch.exp(uniform(t, low, high))
    use_native = (uniform(t) < settings.native_share) & ~is_portrait
    least, most = settings.zoom_limits
    zoom = torch.where(use_native, native, aimed).clamp(max=most)
    zoom = torch.where(is_portrait, zoom, zoom.clamp(min=least))
    stretch = torch.exp(torch.randn(t, device=device, generator=generator) * settings.aspect / 2)
    zoom_xy = torch.stack([zoom * stretch, zoom / stretch], 1)

    # where the crop lies: the face anywhere in the tile, the window inside the image if it fits
    where = torch.stack([uniform(t), uniform(t)], 1)
    margin = torch.minimum(face_height * zoom * 0.45, tile * 0.5)[:, None]
    at = margin + where * (tile[:, None] - 2 * margin)  # the face's centre, in tile pixels
    window = tile[:, None] / zoom_xy  # in source pixels
    start = centre - at / zoom_xy
    room = size - window
    start = torch.where(room > 0, torch.minimum(start.clamp(min=0), room.clamp(min=0)), start)

    # tile pixel → source pixel: mirror, turn about the window's middle, scale, shift
    mirror = torch.where(uniform(t) < 0.5, -1.0, 1.0)
    turned = uniform(t) < 1 / 3
    angle = torch.randn(t, device=device, generator=generator) * math.radians(
        settings.rotation_degrees
    )
    angle = torch.where(turned, angle, 0.0)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    linear = rotation.clone()
    linear[:, :, 0] *= mirror[:, None]
    linear = linear / zoom_xy[:, :, None]
    middle = start + window / 2
    tile_middle = corner + tile[:, None] / 2
    shift = middle - (linear @ tile_middle[:, :, None]).squeeze(2)
    to_source = torch.cat([linear, shift[:, :, None]], 2)
    level = torch.floor(torch.log2((1 / zoom).clamp(min=1.0)) + 0.3).long()
    crops = Crops(
        side,
        canvas,
        grid,
        first_tile,
        corner,
        tile,
        image,
        level.clamp(max=PYRAMID_LEVELS - 1),
        to_source,
    )
    return crops, _carry_faces(store, crops, zoom_xy, canvases, settings)


def pick(ids: Tensor, share: Tensor) -> Tensor:
    """Choose an id by a share of the list, 0 to 1; zeros where the list is empty."""
    if len(ids) == 0:
        return torch.zeros(len(share), dtype=torch.long, device=share.device)
    return ids[(share * len(ids)).long().clamp(max=len(ids) - 1)]


def _carry_faces(
    store: ImageStore, crops: Crops, zoom_xy: Tensor, canvases: int, settings: CropSettings
) -> Targets:
    """Map every face of every tile's image to the canvas and decide what becomes of it."""
    device = store.boxes.device
    counts = store.first_face[crops.image + 1] - store.first_face[crops.image]
    tile_of = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
    within = torch.arange(len(tile_of), device=device) - (counts.cumsum(0) - counts)[tile_of]
    face = store.first_face[crops.image][tile_of] + within
    source = store.boxes[face]
    # what lies beyond the picture's edge cannot be seen
    size = store.size_wh[crops.image[tile_of], 0].float()
    shown = torch.minimum(source.clamp(min=0), size.repeat(1, 2))
    linear = crops.to_source[tile_of, :, :2]
    shift = crops.to_source[tile_of, :, 2]
    centre = (shown[:, :2] + shown[:, 2:]) / 2
    at = torch.linalg.solve(linear, (centre - shift)[:, :, None]).squeeze(2)
    half = (shown[:, 2:] - shown[:, :2]) / 2 * zoom_xy[tile_of]
    low = crops.corner[tile_of]
    high = low + crops.tile[tile_of, None]
    box = torch.cat([torch.maximum(at - half, low), torch.minimum(at + half, high)], 1)
    wh = (box[:, 2:] - box[:, :2]).clamp(min=0)
    whole = ((source[:, 2:] - source[:, :2]) * zoom_xy[tile_of]).prod(1)
    visible = wh.prod(1) / whole.clamp(min=1e-6)
    partly = (wh > 1).all(1)
    ignore = store.ignore[face] | (wh[:, 1] < settings.least_face_px)
    ignore = ignore | (visible < settings.least_visible)

    # pad to a rectangle
    face_canvas = crops.canvas[tile_of][partly]
    per_canvas = torch.bincount(face_canvas, minlength=canvases)
    slot = (
        torch.arange(len(face_canvas), device=device)
        - (per_canvas.cumsum(0) - per_canvas)[face_canvas]
    )
    most = max(1, int(per_canvas.max()))
    boxes = torch.zeros(canvases, most, 4, device=device)
    gender = torch.full((canvases, most), -1, dtype=torch.long, device=device)
    ignored = torch.zeros(canvases, most, dtype=torch.bool, device=device)
    valid = torch.zeros(canvases, most, dtype=torch.bool, device=device)
    boxes[face_canvas, slot] = box[partly]
    gender[face_canvas, slot] = store.gender[face][partly]
    ignored[face_canvas, slot] = ignore[partly]
    valid[face_canvas, slot] = True
    return Targets(boxes, gender, ignored, valid)
