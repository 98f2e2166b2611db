"""A GPU that is not there: its tensors say that they are on "cuda", or "mps", and are computed on the CPU.

What fails on a real one fails here: operations on tensors of two devices; on MPS float64, and what it has no
kernels for. What makes the host wait for a real one is counted, by operation and line. Not shown: speed,
memory, other roundings, whether copies that nobody waits for come in time, and several GPUs. For a process of
its own, with a torch that knows no real one: what it changes in torch stays changed. PRETEND, of its
environment, is the kind.
"""

import os
import shutil
import subprocess
import threading
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

KIND = os.environ.get("PRETEND", "cuda")
CPU, GPU = torch.device("cpu"), torch.device(KIND, 0)
PROJECT = Path(__file__).parents[2]
aten = torch.ops.aten

COPIES = (aten._to_copy.default, aten.copy_.default)
# The host has to know a number, how many there are, or whether a decomposition succeeded.
NUMBERS = ("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim")
DECOMPOSITIONS = ("_linalg_eigh", "_linalg_svd", "linalg_cholesky", "_linalg_solve_ex", "linalg_inv_ex")

# What a GPU has kernels of its own for, that no CPU has.
RECURRENT = ("rnn_tanh", "lstm", "gru", "gru_cell")
SILENT = {"non_blocking": True}

# What MPS has no kernels for, of what is used here. It averages, too, only into parts of equal size.
NOT_ON_MPS = (*DECOMPOSITIONS, "linalg_qr")

# How often the host would have waited, by operation and line.
waits: Counter[str] = Counter()


def build(folder: Path, kind: str) -> Path:
    """Compile what tells torch of a GPU, "cuda" or "mps". Raises FileNotFoundError without a C++ compiler."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise FileNotFoundError("no C++ compiler")
    torch_folder, library = Path(torch.__file__).parent, folder / "accelerator.so"
    source = [str(Path(__file__).with_name("accelerator.cpp")), f"-I{torch_folder / 'include'}"]
    libraries = [f"-L{torch_folder / 'lib'}", f"-Wl,-rpath,{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    options = ["-std=c++20", "-shared", "-fPIC", f"-DKIND={kind.upper()}"]
    subprocess.run([compiler, *options, *source, *libraries, "-o", str(library)], check=True)
    return library


def install() -> None:
    """From here on this process has a GPU. What `build` made must be loaded before torch (LD_PRELOAD)."""
    torch._C._set_only_lift_cpu_tensors(True)
    cuda: Any = torch.cuda
    mps: Any = torch.backends.mps
    if KIND == "mps":
        mps.is_available = lambda: True
    else:
        cuda._lazy_init = lambda: None
        cuda.is_available = lambda: True
        cuda.device_count = lambda: 1
        cuda.current_device = lambda: 0
        cuda.current_stream = lambda device: _Stream()  # noqa: ARG005
        cuda.Event = _Event
        cuda.is_bf16_supported = lambda *_: True
        cuda.manual_seed_all = lambda *_: None
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _Dispatch().__enter__()  # type: ignore[no-untyped-call]
    _Functions().__enter__()  # type: ignore[no-untyped-call]
    threading.Thread.run = _with_modes(threading.Thread.run)  # type: ignore[method-assign]


class _Pretend(Tensor):
    """A tensor on the GPU, and the one on the CPU that has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> "_Pretend":
        pretend: _Pretend = Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=GPU,
        )
        pretend.held = real
        return pretend

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    """Sees what makes tensors, too, where no tensor is given that could be on a GPU."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What torch itself would refuse before any operation is dispatched."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.pin_memory:
            return args[0]
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        if "pin_memory" in kwargs:
            kwargs = {**kwargs, "pin_memory": False}
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _moved(func, args, kwargs)
        if getattr(func, "__name__", "") in RECURRENT:
            return tree_map(_to_gpu, func(*tree_map(_to_cpu, args), **tree_map(_to_cpu, kwargs)))
        return func(*args, **kwargs)


class _Move(torch.autograd.Function):
    """Tensor.to another device. torch's own asks the driver."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, options: dict[str, Any]) -> Tensor:
        ctx.back = {**options, "device": x.device, "dtype": x.dtype}
        copied: Tensor = aten._to_copy.default(x, **options)
        return copied

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return aten._to_copy.default(slopes[0], **ctx.back), None


def _to_cpu(each: Any) -> Any:
    return _Move.apply(each, SILENT | {"device": CPU}) if isinstance(each, Tensor) else each  # type: ignore[no-untyped-call]


def _to_gpu(each: Any) -> Any:
    return _Move.apply(each, SILENT | {"device": GPU}) if isinstance(each, Tensor) else each  # type: ignore[no-untyped-call]


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    x, *wanted = args
    if func is Tensor.cpu:
        wanted = [CPU]
    elif func is Tensor.cuda:
        wanted = [GPU]
    device, dtype = x.device, x.dtype
    for each in (*wanted, *kwargs.values()):
        if isinstance(each, Tensor):
            device, dtype = each.device, each.dtype
        elif isinstance(each, torch.dtype):
            dtype = each
        elif isinstance(each, str | torch.device):
            device = torch.device(each)
    if device.type == x.device.type:
        return x if dtype == x.dtype else Tensor.to(x, dtype)
    options = {"device": GPU if device.type == KIND else device, "dtype": dtype}
    options["non_blocking"] = kwargs.get("non_blocking", False)
    moved: Tensor = _Move.apply(x, options)  # type: ignore[no-untyped-call]
    return moved


def _compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation, on the CPU. What comes out is on the GPU where what went in was, or as is asked for."""
    leaves = tree_leaves((args, kwargs))
    on_gpu = any(isinstance(leaf, _Pretend) for leaf in leaves)
    device = kwargs.get("device")
    to_gpu = on_gpu if device is None else torch.device(device).type == KIND
    if not on_gpu and not to_gpu:
        return func(*args, **kwargs)
    if on_gpu:
        _refuse_two_devices(func, args, leaves)
    if _waits(func, args, kwargs, on_gpu=on_gpu, to_gpu=to_gpu):
        waits[f"{func} at {_line()}"] += 1
    if "pin_memory" in kwargs:
        kwargs = {**kwargs, "pin_memory": False}
    if device is not None:
        kwargs = {**kwargs, "device": CPU}
    out = func(*tree_map(_real, args), **tree_map(_real, kwargs))
    if KIND == "mps" and to_gpu:
        _refuse_what_mps_lacks(func, args, out)
    same = {id(_real(leaf)): leaf for leaf in leaves if isinstance(leaf, Tensor)}

    def shown(each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        if id(each) in same:
            return same[id(each)]
        return _Pretend(each) if to_gpu else each

    return tree_map(shown, out)


def _real(each: Any) -> Any:
    return each.held if isinstance(each, _Pretend) else each


def _refuse_two_devices(func: Any, args: tuple[Any, ...], leaves: list[Any]) -> None:
    """A single number may lie on the CPU, and so may an index, which is copied."""
    others = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, _Pretend)]
    is_index = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
    allowed = func in COPIES or (is_index and isinstance(args[0], _Pretend))
    if not allowed and any(other.dim() for other in others):
        raise RuntimeError(f"{func} at {_line()}: expected all tensors on one device, found {GPU} and cpu")


def _refuse_what_mps_lacks(func: Any, args: tuple[Any, ...], out: Any) -> None:
    name = func.overloadpacket.__name__
    uneven = name == "_adaptive_avg_pool2d" and any(
        frames % parts for frames, parts in zip(args[0].shape[2:], args[1], strict=True)
    )
    is_double = any(isinstance(each, Tensor) and each.dtype == torch.float64 for each in tree_leaves(out))
    if name in NOT_ON_MPS or uneven or is_double:
        raise NotImplementedError(f"{func} at {_line()}: {'float64' if is_double else name} on MPS")


def _waits(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, on_gpu: bool, to_gpu: bool) -> bool:
    name = func.overloadpacket.__name__
    if func is aten._to_copy.default:
        return on_gpu != to_gpu and not kwargs.get("non_blocking")
    if func is aten.copy_.default:
        between = isinstance(args[0], _Pretend) != isinstance(args[1], _Pretend)
        return between and not (kwargs.get("non_blocking") or args[2:3] == (True,))
    if name == "index":
        indices = [index for index in args[1] if index is not None]
        return any(index.dtype == torch.bool or not isinstance(index, _Pretend) for index in indices)
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    return name in NUMBERS or name in DECOMPOSITIONS


def _line() -> str:
    """The project's line that asked for it, if it can be seen: in a backward pass it cannot."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(PROJECT / "model") or path.is_relative_to(PROJECT / "pipeline"):
            return f"{path.relative_to(PROJECT)}:{frame.lineno}"
    return "?"


class _Event:
    """What was sent to the GPU before is always done. Without a stream, `record` would take that of whichever
    GPU is the process's current one."""

    def record(self, stream: "_Stream") -> None: ...
    def synchronize(self) -> None: ...


class _Stream:
    def record_event(self) -> _Event:
        return _Event()


def _with_modes(run: Any) -> Any:
    """Modes are a thread's own: a new one has them, too."""

    def run_with_modes(thread: threading.Thread) -> None:
        with _Dispatch(), _Functions():  # type: ignore[no-untyped-call]
            run(thread)

    return run_with_modes
