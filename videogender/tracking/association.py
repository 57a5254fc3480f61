"""Which detection continues which track: overlap of boxes, and the cheapest assignment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign", "overlaps"]

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def overlaps(tracks: Floats, reach: Floats, boxes: NDArray[np.floating]) -> Floats:
    """Return the overlap (IoU) of tracks and detections, 0 to 1, [T, D].

    Both boxes are first grown by the track's uncertainty. A face is small beside the way it may
    go between two looks, so plain IoU would lose it; grown boxes still tell near from far (the
    buffered IoU of Yang et al., "Hard to Track Objects with Irregular Motions and Similar
    Appearances? Make It Easier by Buffering the Matching Space", 2023, with the filter's own
    spread as the buffer).

    Args:
        tracks: [T, 4], predicted boxes, xyxy in pixels.
        reach: [T, 2], how far off their centres may be along x and y, in pixels.
        boxes: [D, 4], detections.
    """
    others = boxes.astype(np.float64)[None]
    mine = tracks[:, None]
    growth = reach[:, None]
    low = np.maximum(mine[..., :2], others[..., :2]) - growth
    high = np.minimum(mine[..., 2:], others[..., 2:]) + growth
    shared = np.maximum(high - low, 0).prod(-1)
    area = (mine[..., 2:] - mine[..., :2] + 2 * growth).prod(-1)
    other_area = (others[..., 2:] - others[..., :2] + 2 * growth).prod(-1)
    iou: Floats = shared / np.maximum(area + other_area - shared, 1e-9)
    return iou


def assign(cost: Floats, limit: float) -> tuple[Indices, Indices]:
    """Pair rows with columns so that the costs are least in sum.

    A row may stay alone, at the cost `limit`; so no pair costs that much or more. Exact: shortest
    augmenting paths (Jonker and Volgenant, "A shortest augmenting path algorithm for dense and
    sparse linear assignment problems", 1987) for the rows whose cheapest columns clash. In most
    frames none do, and then the cheapest column of each row is the answer.

    Args:
        cost: [R, C], not negative.
        limit: the least cost that is too much.

    Returns:
        rows and columns of the pairs, rows in ascending order.
    """
    count, columns = cost.shape
    if not cost.size:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    best = cost.argmin(1)
    wants = cost[np.arange(count), best] < limit
    if len(set(best[wants].tolist())) == np.count_nonzero(wants):
        rows = np.flatnonzero(wants)
        return rows, best[rows]
    # A column of its own for every row that stays alone makes the problem one of full pairing.
    alone = np.full((count, count), np.inf)
    np.fill_diagonal(alone, limit)
    owner = _owners(np.hstack([np.minimum(cost, limit), alone]))[:columns]
    taken = np.flatnonzero(owner >= 0)
    rows = owner[taken]
    cheap = cost[rows, taken] < limit
    order = rows[cheap].argsort()
    return rows[cheap][order], taken[cheap][order]


def _owners(cost: Floats) -> Indices:
    """Return which row has each column, or -1, in the cheapest pairing of all rows; R <= C."""
    count, columns = cost.shape
    owner = np.full(columns, -1, np.intp)
    row_price, column_price = cost.min(1), np.zeros(columns)
    for row in range(count):
        # Dijkstra from this row to the nearest free column, over reduced costs, all >= 0.
        distance = np.full(columns, np.inf)
        before = np.full(columns, -1, np.intp)  # the column whose row reached this one
        done = np.zeros(columns, bool)
        at_row, at_column, reached = row, -1, 0.0
        while at_row >= 0:
            through = reached + cost[at_row] - row_price[at_row] - column_price
            shorter = (through < distance) & ~done
            distance[shorter], before[shorter] = through[shorter], at_column
            at_column = int(np.where(done, np.inf, distance).argmin())
            reached = float(distance[at_column])
            done[at_column] = True
            at_row = int(owner[at_column])
        passed = done.copy()
        passed[at_column] = False
        gain = reached - distance[passed]
        row_price[row] += reached
        row_price[owner[passed]] += gain
        column_price[passed] -= gain
        while at_column >= 0:  # hand columns on along the path
            previous = int(before[at_column])
            owner[at_column] = row if previous < 0 else owner[previous]
            at_column = previous
    return owner
