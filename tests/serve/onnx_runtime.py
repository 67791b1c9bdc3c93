"""What MLServer runs: an ONNX model, by onnxruntime. It knows nothing of Litmus."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):  # type: ignore[misc] # MLServer is not where types are checked
    """Answers with the first output of the graph."""

    async def load(self) -> bool:
        """Open the file that the settings name."""
        parameters = self.settings.parameters
        assert parameters is not None
        self._session = onnxruntime.InferenceSession(str(parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the one input of a request."""
        (tensor,) = payload.inputs
        rows = self._session.run(None, {tensor.name: NumpyCodec.decode_input(tensor)})[0]
        name = self._session.get_outputs()[0].name
        output = NumpyCodec.encode_output(name=name, payload=rows)
        return InferenceResponse(model_name=self.name, outputs=[output])
