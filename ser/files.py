"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def whole(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a new file that takes the name `path` only when the block ends without an error.

    mode: "w" (UTF-8 text) or "wb". Folders on the way are made. A reader sees the old file or the
    new one, never a part; a killed writer leaves at most a hidden temporary file beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        encoding = None if "b" in mode else "utf-8"
        with open(handle, mode, encoding=encoding) as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)  # mkstemp's 0600 would lock colleagues out
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
