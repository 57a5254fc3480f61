"""Contact sheet: faces that were answered wrongly, cut out of the user's own pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from videogender.reports.markup import Html, tag
from videogender.reports.page import fold, picture
from videogender.reports.thumbnails import MARGIN, Kind, portrait
from videogender.reports.words import percent

__all__ = ["contact_sheet"]

_SIZE_PX = 168
# A page of more pictures is slow to open; what comes later matters less.
_MOST = 96
_SHOWN = 24


def contact_sheet(faces: Sequence[Mapping[str, Any]], kind: Kind = "plain") -> Html:
    """Return pictures of faces with their label, the answer, and where they come from.

    Args:
        faces: MISTAKEs of a fine-tuning run, in order.
        kind: whether they are shown as they are, averaged to a few cells, or not at all.
    """
    items = [_item(face, kind) for face in faces[:_MOST]]
    if not items:
        return Html()
    shown = tag("ul", *items[:_SHOWN], class_="sheet")
    rest = items[_SHOWN:]
    more = fold(f"{len(rest)} more", tag("ul", *rest, class_="sheet")) if rest else None
    left = len(faces) - len(items)
    note = tag("p", f"{left:,} more are not shown.", class_="note") if left > 0 else None
    return tag("div", shown, more, note)


def _item(face: Mapping[str, Any], kind: Kind) -> Html:
    answer, probability = face.get("answer"), face.get("probability")
    told = f"{answer} {percent(probability)}" if probability is not None else answer
    lines = [
        tag("div", "label: ", tag("strong", face.get("label"))),
        tag("div", "answer: ", tag("strong", told)) if answer is not None else None,
    ]
    name = Path(str(face["image"])).name if face.get("image") else None
    where = " · ".join(str(part) for part in (name, face.get("where")) if part)
    return tag("li", _picture(face, kind), *lines, tag("div", where, class_="where"))


def _picture(face: Mapping[str, Any], kind: Kind) -> Html | None:
    if kind == "none":
        return None
    try:
        # Boxes are in pixels of the upright picture.
        with Image.open(str(face["image"])) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError, KeyError, Image.DecompressionBombError):
        return tag("div", "picture not there", class_="missing")
    box = face.get("box")
    jpeg = portrait(
        image,
        box or (0, 0, image.width, image.height),
        is_blurred=kind == "blurred",
        size_px=_SIZE_PX,
        margin=MARGIN if box else 0.0,
    )
    return picture(jpeg, alt=f"labelled {face.get('label')}", size_px=_SIZE_PX)
