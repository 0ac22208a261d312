"""How a method is laid out on its devices: memory format, compilation, batch norms, shards."""

from __future__ import annotations

from collections.abc import Iterator

from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ecofm.pretrain.encoders import Encoder
from ecofm.pretrain.method import Method
from ecofm.types import say

SHARDED = "fsdp"
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def build_strategy(name: str, n_devices: int) -> str | Strategy:
    """Return what Lightning takes as its strategy.

    `fsdp` is torch's second one: it keeps every parameter's name and shape, works on any device,
    and its checkpoint is one file of whole tensors, which our own plugin writes.
    """
    if name != SHARDED:
        return name
    return ModelParallelStrategy(
        data_parallel_size=n_devices, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def lay_out(
    method: Method,
    *,
    channels_last: bool,
    compile: bool,
    is_sharded: bool,
    n_devices: int,
    on_gpu: bool,
) -> Method:
    """Return a method as its devices want it, and its state under the same names as before."""
    encoders = [part for part in method.modules() if isinstance(part, Encoder)]
    for encoder in encoders:
        encoder.use_channels_last(channels_last, weights=not is_sharded)
        if compile:
            # A graph for each shape: one for any shape would depend on which shape came first.
            encoder.backbone.compile(dynamic=False)
    if n_devices > 1 and any(isinstance(part, BATCH_NORMS) for part in method.modules()):
        if on_gpu:
            # timm's conversion: torch's own loses the activations inside timm's layers.
            return convert_sync_batchnorm(method)  # type: ignore[no-any-return, no-untyped-call]
        say(
            "warning: on CPUs each process takes BatchNorm over its own share, so that the run is "
            "not that of one process; give encoder.norm=group."
        )
    return method


def shard(method: Method, mesh: DeviceMesh) -> None:
    """Spread parameters, gradients and optimizer over devices; blocks are gathered when used."""
    for encoder in method.modules():
        if isinstance(encoder, Encoder):
            for block in find_blocks(encoder.backbone):
                fully_shard(block, mesh=mesh)
    fully_shard(method, mesh=mesh)


def gather(encoder: Encoder) -> Encoder:
    """Return a sharded encoder whole, on the first process; all of them have to ask for it.

    One that is not sharded is returned itself.
    """
    if not any(isinstance(parameter, DTensor) for parameter in encoder.parameters()):
        return encoder
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(encoder, options=options)
    whole = Encoder(encoder.config, encoder.contract)
    if state:  # the other processes get nothing
        whole.load_state_dict(state)
    return whole.to(encoder.mean.device)


def find_blocks(backbone: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost residual or transformer blocks, which are always called as a whole."""
    for child in backbone.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from (block for block in child if next(block.children(), None) is not None)
        else:
            yield from find_blocks(child)
