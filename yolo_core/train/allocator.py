"""The C library's handling of freed memory, for training on a CPU."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees, from now on; does nothing with another C library.

    By default it returns large blocks to the kernel, which zeroes the pages one by one as the next step touches them.
    A step frees what the next one needs, so keeping it costs nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap as well
    mallopt(_M_TRIM_THRESHOLD, -1)  # and the heap does not shrink
