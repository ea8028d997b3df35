"""Memory of the C library between steps of training on a CPU."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library


def keep_freed_memory() -> None:
    """Have the C library keep what this process frees, from now on; nothing happens where it is not GNU's.

    By default it gives large blocks back to the kernel, which clears the pages again one by one as the next step
    touches them. A step frees what the next one needs, so keeping it costs nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap as well
    mallopt(_M_TRIM_THRESHOLD, -1)  # and the heap does not shrink
