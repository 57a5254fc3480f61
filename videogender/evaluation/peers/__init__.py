"""Other public face detectors, run from their ONNX files beside ours.

`peer.Peer` runs a file under onnxruntime; `yunet`, `scrfd` and `centerface` say how pixels go in
and how boxes come out; `open_sizes` lets a file whose input has one size take any.
"""
