"""PyTorch, for comparison: wraps a module that is handed to it, on whatever device the module is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .base import Engine, TensorSpec

if TYPE_CHECKING:
    import torch

    from .base import Tensors


class PyTorchEngine(Engine):
    """Runs ``module(**inputs)``, which takes and returns tensors as ``inputs`` and ``outputs`` (one of them) say.

    The arrays that ``run`` returns are the caller's. The module is the caller's too: ``close`` does not free it.
    """

    backend: ClassVar[str] = "pytorch"

    def __init__(self, module: torch.nn.Module, inputs: tuple[TensorSpec, ...], output: TensorSpec) -> None:
        super().__init__()
        self._module = module
        self._inputs = inputs
        self._output = output
        self._outputs = (output,)

    def _open(self) -> None:
        self._module.eval()

    def _close(self) -> None:
        pass

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        import torch

        with torch.inference_mode():
            # A copy: a tensor cannot share a read-only array, such as a decoded picture, without a warning.
            result: Any = self._module(**{name: torch.tensor(value) for name, value in feeds.items()})
        image = result.cpu().numpy()
        if out is None:
            return {self._output.name: image}
        out[self._output.name][...] = image
        return out
