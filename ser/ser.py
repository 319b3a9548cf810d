"""What `import ser` finds where Python looks in this very folder first: a file of it is called as a script, or one
stands here. Takes the folder off Python's path, lest its files hide other modules, and gives the package."""

import os
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path[:] = [os.path.dirname(here), *(place for place in sys.path if os.path.realpath(place) != here)]
sys.modules.pop("ser", None)

import ser  # noqa: E402, F401
