"""Two ways of the same work timed in turn in one run, and what the machine could do at most."""

import ctypes
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from attnsem.engine import keep_memory


@dataclass(frozen=True)
class Row:
    """Seconds for each `unit`, medians over the rounds; ratio plain / ours, with its lowest and highest round."""

    what: str
    unit: str
    plain: float
    ours: float
    ratio: float
    lowest: float
    highest: float
    share_of_limit: float | None = None  # the machine's least possible time / ours


def usual_memory() -> None:
    """Undoes keep_memory for the plain loop: glibc's thresholds as they are after it has freed large blocks."""
    if platform.libc_ver()[0] == "glibc":
        libc, trim_threshold, mmap_threshold, mmap_max = ctypes.CDLL(None), -1, -3, -4
        libc.mallopt(mmap_max, 65536)
        libc.mallopt(mmap_threshold, 32 * 2**20)
        libc.mallopt(trim_threshold, 64 * 2**20)
        libc.malloc_trim(0)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def compare(
    what: str,
    plain: Callable[[], object],
    ours: Callable[[], object],
    *,
    of: int,
    unit: str,
    rounds: int,
    device: torch.device,
    limit: float | None = None,
    plain_of: int | None = None,
    plain_script: bool = True,
) -> Row:
    """Each way in turn, `rounds` times, timed the second of two calls.

    of: how many units `ours` does, and `plain` unless plain_of says otherwise; limit: least seconds a unit.
    plain_script: False where `plain` is the study's own code too, which keeps memory as `ours` does.
    """
    pairs = []
    for _ in range(rounds):
        usual_memory() if plain_script else keep_memory()
        plain()
        slow = seconds(plain, device) / (plain_of or of)
        keep_memory()
        ours()
        pairs.append((slow, seconds(ours, device) / of))
    table = pd.DataFrame(pairs, columns=["plain", "ours"])
    ratios, medians = table["plain"] / table["ours"], table.median()
    share = limit / medians["ours"] if limit else None
    row = Row(what, unit, *medians, ratios.median(), ratios.min(), ratios.max(), share)
    print(line(row), flush=True)
    return row


def line(row: Row) -> str:
    share = "" if row.share_of_limit is None else f"{100 * row.share_of_limit:.0f} %"
    scale, sign = (1000, "ms") if row.ours < 10 else (1, "s")
    times = f"{scale * row.plain:.4g} | {scale * row.ours:.4g} {sign} {row.unit}"
    return f"| {row.what} | {times} | {row.ratio:.2f} ({row.lowest:.2f}-{row.highest:.2f}) | {share} |"


def heading() -> str:
    return (
        "| what | plain | ours | ratio (lowest-highest round) | share of the machine's limit |\n|---|---|---|---|---|"
    )


def as_dict(rows: Iterable[Row]) -> list[dict]:
    return [{k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows]


@dataclass(frozen=True)
class Limits:
    """What the machine reached: matrix products (float operations a second) and copies (bytes moved a second)."""

    flops: dict[str, float]
    bytes: float

    @classmethod
    def measured(cls, device: torch.device, size: int = 4096) -> "Limits":
        size = size if device.type == "cuda" else size // 2
        flops = {}
        for name, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
            a = torch.rand(size, size, device=device, dtype=dtype)
            torch.mm(a, a)
            flops[name] = 2 * size**3 / min(seconds(lambda a=a: torch.mm(a, a), device) for _ in range(10))
        source = torch.zeros(2**26, device=device)
        target = torch.empty_like(source)
        target.copy_(source)
        moved = 2 * source.nbytes
        return cls(flops, moved / min(seconds(lambda: target.copy_(source), device) for _ in range(10)))

    def least(self, work: Callable[[], object], precision: str) -> float:
        """The least seconds for the work: its float operations or its bytes, whichever takes longer.

        Operations are those of products and convolutions; bytes are what each operator of PyTorch reads and
        writes by itself, so a fused program may be faster than this limit.
        """
        with FlopCounterMode(display=False) as operations, Bytes() as traffic:
            work()
        return max(operations.get_total_flops() / self.flops[precision], traffic.total / self.bytes)


class Bytes(TorchDispatchMode):
    """Counts the bytes of the tensors that go into and out of each operator, views left out."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not any(value.alias_info for value in function._schema.returns) or function._schema.is_mutable:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.total += sum(tensor.nbytes for tensor in tensors)
        return result
