"""The trained detector outside PyTorch: ONNX, TensorRT, and the clock that times them all."""
