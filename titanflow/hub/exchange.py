"""Two folders change places in one step, so that there is always one under each name."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2
CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What a kernel or a file system answers that knows no exchange."""


def exchange(first: Path, second: Path) -> bool:
    """Swaps two paths of one file system by Linux's ``renameat2``; False, and nothing done, where there is none.

    Python's own renames replace a file in one step, but no folder that holds something.

    Raises:
        OSError: a path isn't there, or may not be renamed.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
