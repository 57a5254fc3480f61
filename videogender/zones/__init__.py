"""Zones and lines in the picture: who is where, who comes and goes, and for how long.

A face is where the centre of its box is. It counts as inside a zone, or as beyond a line, once its
centre has passed the edge by a quarter of its own size; so a face that trembles on an edge neither
comes nor goes. Figures are, by label (`{"all", "female", "male", "unsure"}`),

    zones   [{"name", "points": corners in pixels,
              "appearances": tracks that were ever inside,
              "entries", "exits": over the edge, while in view,
              "dwell_seconds": inside, summed over faces, and "mean_dwell_seconds" an appearance,
              "peak": most at once}]
    lines   [{"name", "points", "in", "out": crossings; `in` leads to the right of who looks from
              the line's first point to its second}]

In live video a label may change: figures count what a track has done under the label that it has by
now, events (`LiveZones.happened`) keep the label of their moment, so that none of them ever falls.

Without tracks only `dwell_seconds` and `peak` of zones are known; everything else is null.
"""
