"""Peak memory of one call, each measured in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def peak_growth(key: str, contender: str, label: str, timeout: float = 300.0) -> int | None:
    """Bytes by which one call of a row's contender raises the resident set, at its highest.

    The process is fresh: forked from a server that has imported torch and done nothing else. There
    one example is explained first, which loads kernels and fills caches; what that leaves behind
    is handed back, and then the growth over the whole batch is read (VmHWM less VmRSS).

    The allocator is told to keep no freed block of 64 KiB or more. Left alone, glibc raises that
    bound as it goes and holds on to a part that changes with the order of allocations (up to half
    of the growth), which says nothing about the method; so the figures are those of live tensors.

    Returns:
        None where the kernel does not tell (outside Linux), or where the process died.
    """
    if not STATUS.exists():
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.rows"])
    threads = torch.get_num_threads()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_child, args=(sender, key, contender, label, threads), daemon=True
    )
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(timeout) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


def _child(sender: Connection, key: str, contender: str, label: str, threads: int) -> None:
    from benchmarks.models import build
    from benchmarks.rows import every_row
    from benchmarks.with_captum import silence

    torch.set_num_threads(threads)
    silence()
    row = every_row()[key]
    workload = row.on(build(row.model))
    make = row.variants(contender)[label]
    _keep_no_freed_block()
    with torch.no_grad():
        make(workload.head(1))()
        call = make(workload)
        _return_free_memory()
        _reset_peak()
        before = _status("VmRSS")
        call()
        sender.send(max(0, _status("VmHWM") - before))


def _status(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _reset_peak() -> None:
    """Linux: writing 5 sets VmHWM back to VmRSS. Where it is forbidden the peak so far stands."""
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")


def _keep_no_freed_block() -> None:
    """glibc: mallopt(M_MMAP_THRESHOLD, 64 KiB), which also ends its adaptation."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(-3, 65536)


def _return_free_memory() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
