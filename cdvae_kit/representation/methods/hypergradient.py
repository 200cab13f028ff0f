"""The gradient of a loss after one step of training, by what the training loss depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Forward: TypeAlias = Callable[[Any], Tensor]
"""A batch to what the model says of it, under weights that are not its own."""


def one_step_hypergradient(
    model: nn.Module,
    train_loss: Callable[[Forward], Tensor],
    validation_loss: Callable[[Forward], Tensor],
    policy_parameters: Sequence[Tensor],
    *,
    learning_rate: float,
) -> list[Tensor]:
    """The gradient, by the policy, of the validation loss after one step of gradient descent on the training loss.

    With θ' = θ − η ∇_θ L_train(θ, h) it is dL_val(θ')/dh = −η ∂_h ⟨∇_θ L_train(θ, h), ∇L_val(θ')⟩: what makes the two
    gradients agree is rewarded. The model, its buffers included, is left as it is, and no `.grad` is written.

    Args:
        model: its parameters that require a gradient take the step.
        train_loss: given the forward pass, the scalar loss; it depends on the policy.
        validation_loss: the same for validation samples; it does not.
        policy_parameters: the gradient is taken by these.
        learning_rate: η, of the step.

    Returns:
        One tensor for each policy parameter, zeros where the loss does not depend on it.
    """
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters() if p.requires_grad}
    if not weights:
        raise ValueError("the model has no parameter that requires a gradient, so that no step can be taken")

    def forward_under(parameters: dict[str, Tensor]) -> Forward:
        # running averages are written in place: into copies
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return lambda batch: functional_call(model, {**parameters, **buffers}, (batch,))

    # the fused attention of the CPU has no second derivative
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        loss = train_loss(forward_under(weights))
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
        stepped = {
            name: weight - learning_rate * slope for (name, weight), slope in zip(weights.items(), slopes, strict=True)
        }
        value = validation_loss(forward_under(stepped))
        return list(torch.autograd.grad(value, list(policy_parameters), materialize_grads=True))
