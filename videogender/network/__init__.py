"""The networks: trunks, heads, anchors, boxes and how their weights are stored."""
