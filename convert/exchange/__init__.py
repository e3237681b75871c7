"""Nets from and for other frameworks: NIR in and out (``nir_*``), CNNs from ONNX (``onnx_*``)."""
