"""Several models of one architecture as one computation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class Stack(nn.Module):
    """k models of one architecture side by side: [k, n, ...] in, [k, n, C] out, model i on the i-th records.

    One by one, small models keep a GPU waiting for launches; what this gains there has not been measured. Their
    parameters are copies; `unstack` gives them back. Dropout draws anew for each model.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(list(models))
        self.names = {name: name.replace(".", "/") for name in [*parameters, *buffers]}  # no dots in a module's names
        for name, tensor in parameters.items():
            self.register_parameter(self.names[name], nn.Parameter(tensor.detach()))
        for name, tensor in buffers.items():
            self.register_buffer(self.names[name], tensor)
        self.base = [models[0]]  # in a list it is no submodule: its parameters are not this module's

    def forward(self, x: Tensor) -> Tensor:
        base, tensors = self.base[0].train(self.training), {n: getattr(self, own) for n, own in self.names.items()}

        def one(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
            y: Tensor = functional_call(base, tensors, (x,))
            return y

        y: Tensor = vmap(one, randomness="different")(tensors, x)
        return y


def unstack(model: nn.Module) -> list[dict[str, Tensor]]:
    """The state of each model in a `Stack`, or of any other model alone, as views."""
    state = model.state_dict()
    if not isinstance(model, Stack):
        return [state]
    count = len(next(iter(state.values())))
    return [{name: state[own][i] for name, own in model.names.items()} for i in range(count)]
