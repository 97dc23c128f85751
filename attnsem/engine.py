"""Lightning Fabric as the study uses it: device, precision, and several processes that end where one would."""

import ctypes
import logging
import os
import platform
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from attnsem import StudyError
from attnsem.files import held

if TYPE_CHECKING:
    from lightning_fabric import Fabric
else:
    Fabric = object  # lightning's is imported by launched(): it pulls in torch._dynamo, which takes seconds

Item, Result = TypeVar("Item"), TypeVar("Result")


def launched(device: str, *, precision: str, processes: int = 1, nodes: int = 1) -> Fabric:
    """Fabric on `nodes` machines with `processes` each, float32 IEEE's, not TF32. StudyError on an unknown device."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise StudyError(f"parameter device must be one of auto, cpu, cuda, mps, not {device!r}")
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(device)
    if backend and not backend.is_available():
        raise StudyError(f"there is no {device} device here; give -p device auto, or cpu")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # manifests say the precision, notebooks need not
    strategy = "auto"
    if processes * nodes > 1:  # ŷ need not depend on S, and the others wait while the first caches features
        strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False, timeout=timedelta(days=2))
    fabric = Fabric(accelerator=device, devices=processes, num_nodes=nodes, precision=precision, strategy=strategy)
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_memory()
    return fabric


@contextmanager
def memory_given_back() -> Iterator[None]:
    """Decorates what works on a GPU: its memory there is others' to use again, though the kernel lives on."""
    try:
        yield
    finally:
        torch.cuda.empty_cache()


def keep_memory() -> None:
    """Lets glibc keep freed memory: fresh pages for each batch cost up to a third of a step (mallopt(3))."""
    if platform.libc_ver()[0] == "glibc":
        libc, trim_threshold, mmap_max = ctypes.CDLL(None), -1, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)


def fastest_precision(device: str) -> str:
    """bf16-mixed where the hardware multiplies bfloat16 (Ampere and newer; AVX512-BF16 or AMX), else 32-true."""
    if device == "auto":
        device = (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")).type
    if device == "cuda":
        multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities() if device == "cpu" else {}
        multiplies = able.get("avx512_bf16") or able.get("amx_bf16")
    return "bf16-mixed" if multiplies else "32-true"


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Normalises by the batches of all processes together, on CPUs, for which torch has no SyncBatchNorm.

    Mean and variance by two passes, in float32; a process may have no image in a batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, K, h, w), this process's images. Returns the same shape."""
        from torch.distributed.nn.functional import all_reduce

        if not self.training:
            return super().forward(x)
        values = x.float()
        count = all_reduce(torch.tensor(float(x.numel() // x.shape[1])))
        mean = all_reduce(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def share_batchnorm(network: nn.Module, fabric: Fabric) -> None:
    """Lets BatchNorm see the whole batch where several processes have a part of it each."""
    if fabric.world_size > 1 and fabric.device.type != "cpu":
        from timm.layers import convert_sync_batchnorm

        convert_sync_batchnorm(network)
    elif fabric.world_size > 1:
        for name, module in network.named_modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SharedBatchNorm2d
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                kind = type(module).__name__
                raise StudyError(f"{name} is a {kind}, which several processes on a CPU cannot share; use one process")


def compiled(network: nn.Module) -> None:
    """Compiles the network where it stands; StudyError where there is no compiler for what torch.compile writes."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "cl")):
        raise StudyError("compile=True needs a C++ compiler and none is found; install g++, or leave compile False")
    network.compile()


@contextmanager
def held_by_all(fabric: Fabric, folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a folder for all processes of a run: the first has the lock, and all fail where it cannot get it.

    wait: for another run that has it, as runs side by side do that want the same cache.
    """
    with ExitStack() as stack:
        refusal = None
        if fabric.is_global_zero:
            try:
                stack.enter_context(held(folder, wait=wait))
            except StudyError as error:
                refusal = str(error)
        if refusal := fabric.broadcast(refusal):
            raise StudyError(refusal)
        yield
        fabric.barrier()


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """work(item) of each item in order, in two threads, the next ones begun before they are asked for."""
    items = iter(items)
    with ThreadPoolExecutor(2) as pool:
        pending = deque(pool.submit(work, item) for item in islice(items, 2))
        while pending:
            pending.extend(pool.submit(work, item) for item in islice(items, 1))
            yield pending.popleft().result()


def largest_batch(work: Callable[[int], Result], device: torch.device) -> Result:
    """work(images in a batch) with as many as fit; on a CPU 32, beyond which there is no gain."""
    size = 32 if device.type == "cpu" else 256
    while True:
        try:
            return work(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        size //= 2
        torch.cuda.empty_cache()
