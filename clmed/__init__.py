"""clmed adapts a pretrained language model to a domain and shows what every step gained and what it cost.

In Python: `clmed.run`, `clmed.load_run`, `clmed.plot`, `clmed.compare`, `clmed.metrics` (docs/notebooks.md). They are
imported when they are first asked for, so that `import clmed` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clmed.api import Run as Run
    from clmed.api import compare as compare
    from clmed.api import load_run as load_run
    from clmed.api import plot as plot
    from clmed.api import run as run
    from clmed.errors import UserError as UserError
    from clmed.results import metrics as metrics

__version__ = "0.1.0"
__all__ = ["Run", "UserError", "compare", "load_run", "metrics", "plot", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'clmed' has no attribute '{name}'")
    from clmed import api

    return getattr(api, name)
