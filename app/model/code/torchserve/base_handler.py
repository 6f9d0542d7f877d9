"""The class that most handlers of TorchServe extend (``ts.torch_handler.base_handler``)."""

from __future__ import annotations

import abc
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .util import list_classes_from_module, load_label_mapping

logger = logging.getLogger("lantern.handler")


class BaseHandler(abc.ABC):  # noqa: B024 - as there, its methods have defaults
    """Loads a model of torch, and answers by ``preprocess``, ``inference`` and ``postprocess``.

    An eager model is its one class in ``modelFile`` with the state dictionary in
    ``serializedFile``; without a ``modelFile`` that is TorchScript. Of a state dictionary only
    tensors are read.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: str | None = None
        self.manifest: Any = None
        self.map_location: Any = None
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, Any] = {}
        self.model_yaml_config: Mapping[str, Any] = {}

    def initialize(self, context: Any) -> None:
        """Load the model of an archive."""
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = context.model_yaml_config
        self.map_location, self.device = "cpu", torch.device("cpu")
        directory = Path(context.system_properties["model_dir"])
        model: Mapping[str, Any] = self.manifest["model"]
        serialized, model_file = model.get("serializedFile"), model.get("modelFile")
        self.model_pt_path = str(directory / serialized) if serialized else None
        if model_file:
            self.model = self._load_pickled_model(str(directory), model_file, self.model_pt_path)
        elif self.model_pt_path and self.model_pt_path.endswith((".pt", ".pth")):
            self.model = self._load_torchscript_model(self.model_pt_path)
        elif self.model_pt_path and self.model_pt_path.endswith(".onnx"):
            self.model = self._load_onnx_model(self.model_pt_path)
        else:
            raise RuntimeError("No model weights could be loaded")
        if hasattr(self.model, "eval"):
            self.model.to(self.device)
            self.model.eval()
        self.mapping = load_label_mapping(str(directory / "index_to_name.json"))
        self.initialized = True

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return torch.jit.load(model_pt_path, map_location=self.device)  # type: ignore[no-untyped-call]

    def _load_onnx_model(self, model_pt_path: str) -> Any:
        import onnxruntime

        return onnxruntime.InferenceSession(model_pt_path, providers=["CPUExecutionProvider"])

    def _load_pickled_model(
        self, model_dir: str, model_file: str, model_pt_path: str | None
    ) -> Any:
        module = self.context.load_module(model_file.split(".", maxsplit=1)[0])
        classes = list_classes_from_module(module)
        if len(classes) != 1:
            names = [each.__name__ for each in classes]
            raise ValueError(f"Expected only one class as model definition. {names}")
        model = classes[0]()
        if model_pt_path:
            state = torch.load(model_pt_path, map_location=self.device, weights_only=True)
            model.load_state_dict(state)
        return model

    def preprocess(self, data: Any) -> Any:
        """Return the tensor of the rows."""
        return torch.as_tensor(data, device=self.device)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what the model answers for a tensor."""
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    def postprocess(self, data: Any) -> Any:
        """Return the answers, one for each row."""
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        """Return the answers to the rows in ``data``."""
        self.context = context
        return self.postprocess(self.inference(self.preprocess(data)))

    def _is_explain(self) -> bool:
        return False

    def _is_describe(self) -> bool:
        return False
