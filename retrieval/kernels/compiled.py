"""How kernels are compiled: by Numba, at their first call, kept on disk where that is possible.

Numba's own cache raises where it cannot write, and does not notice that a function called by the
cached one has changed. So nothing is cached until `use_cache` names a folder that can be written,
and the folder of a process is named after all kernel sources, Numba's version and the processor.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import llvmlite.binding
import numba
from numba.core import config

_LOG: Final = logging.getLogger(__name__)
_kernels: list[Any] = []
_cached_in: Path | None = None

Kernel = Callable[..., Any]


def kernel(function: Kernel) -> Kernel:
    """Compile a function at its first call; strict arithmetic, without the interpreter's lock."""
    dispatcher = numba.njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    _kernels.append(dispatcher)
    if _cached_in is not None:
        _keep(dispatcher)
    compiled: Kernel = dispatcher
    return compiled


def inlined(function: Kernel) -> Kernel:
    """A part of kernels, compiled into each of them; LLVM decides where it is inlined."""
    part: Kernel = numba.njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    return part


def summing(function: Kernel) -> Kernel:
    """A part whose sums are taken in whatever order is fastest: for numbers nobody is promised."""
    loose = {"reassoc", "nsz", "contract"}
    part: Kernel = numba.njit(nogil=True, error_model="numpy", boundscheck=False, fastmath=loose)(
        function
    )
    return part


def use_cache(home: Path) -> str | None:
    """Keep what is compiled below `home` from now on; give the reason where that cannot be."""
    global _cached_in  # noqa: PLW0603  # one cache a process, as Numba has it
    folder = home / "kernels" / _fingerprint()
    if folder == _cached_in:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have been quicker
    except OSError as cause:
        reason = f"compiled code is not kept, every process compiles anew: {cause}"
        _LOG.warning(reason)
        return reason
    config.CACHE_DIR = str(folder)
    _cached_in = folder
    for dispatcher in _kernels:
        _keep(dispatcher)
    return None


def _keep(dispatcher: Any) -> None:
    """Let Numba keep what it compiles, and go on without where files are damaged or a disk full."""
    dispatcher.enable_caching()
    cache = dispatcher._cache  # noqa: SLF001  # Numba has no other place for this
    cache.load_overload = _or_nothing(cache.load_overload)
    cache.save_overload = _or_nothing(cache.save_overload)


def _or_nothing(act: Callable[..., Any]) -> Callable[..., Any]:
    def acted(*arguments: Any) -> Any:
        try:
            return act(*arguments)
        except Exception:  # noqa: BLE001  # unpickling what is damaged raises anything
            _LOG.warning("compiled code is not kept, or was damaged: it is compiled anew")
            return None

    return acted


def _fingerprint() -> str:
    """What compiled code depends on: sources, compiler, processor."""
    name, features = llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features()
    # Virtual machines leave out features of a processor by name.
    digest = hashlib.sha256(f"{numba.__version__} {name} {features.flatten()}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
