"""The weights that ship with videogender, and their model card; no code."""
