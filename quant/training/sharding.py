"""Divide a student among processes: parameters, gradients and moments, a part to each (FSDP).

PyTorch's `fully_shard`, block by block: a block's tensors are whole while it computes. What reads
them from outside asks for `whole` tensors, all processes at once.
"""

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = ["divided_like", "shard", "whole"]


def shard(student: PreTrainedModel, device: torch.device, processes: int) -> None:
    """Leave each process with its part of every parameter; changed in place."""
    # What a saved model is called; sharding gives it a class of another name.
    student.config.architectures = [type(student).__name__]
    mesh = init_device_mesh(device.type, (processes,))
    for module in list(student.modules()):
        if isinstance(module, GradientCheckpointingLayer):  # what blocks of transformers are
            fully_shard(module, mesh=mesh)
    fully_shard(student, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all processes, who must all ask; a plain one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a whole tensor on a parameter's device, divided as the parameter is."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
