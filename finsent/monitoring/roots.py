"""A root of a function of one variable.

Bisection, and not `scipy.optimize.brentq`: a service judges a shadow, and SciPy would add 100 MB to
the service's image.
"""

from __future__ import annotations

from collections.abc import Callable

_HALVINGS = 60  # of an interval of length 2, down to the spacing of floats


def find_root(function: Callable[[float], float], start: float, end: float) -> float:
    """Return where a function changes its sign between two points.

    Args:
        start: where the function has another sign than at `end`.
        end: above or below `start`.
    """
    is_positive = function(end) > 0
    for _ in range(_HALVINGS):
        middle = (start + end) / 2
        if (function(middle) > 0) == is_positive:
            end = middle
        else:
            start = middle
    return end
