"""The trained detector outside PyTorch: ONNX, OpenVINO, TensorRT, CUDA graphs, and the clock that times them all."""
