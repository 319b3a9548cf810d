"""How every command ends: quietly, or with one line that names what is wrong and what to do."""

import errno
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend; the message names file, place and remedy in one line."""


def run(main: Callable[[], None]) -> None:
    """Call `main`; turn what a user can mend into one line on standard error and exit status 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `... | head`
        sys.exit(141)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            remedy = "; free some space and run the same command again"
        elif error.filename is None:  # not about a file of the user's: a fault of ours
            raise
        else:
            remedy = ""
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {where}{error.strerror}{remedy}")
