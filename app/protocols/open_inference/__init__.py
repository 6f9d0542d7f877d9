"""The Open Inference Protocol v2, which clients of KServe, Triton and MLServer speak.

Specification: https://github.com/kserve/open-inference-protocol, and the extensions of Triton that
`EXTENSIONS` names: https://github.com/triton-inference-server/server/tree/main/docs/protocol.
"""

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")
"""Triton's names of what a client may use beside the protocol itself."""
