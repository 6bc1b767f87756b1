"""The bits of merges, remembered: what no change of the program's inside may change."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info


def algebra() -> str:
    """Return what the rounding of products and decompositions of matrices depends on."""
    np.linalg.svd(np.eye(2))  # so that the library is there
    found = {
        f"{it['internal_api']} {it['version']} {it.get('architecture')}"
        for it in threadpool_info()
        if it["user_api"] == "blas" and "numpy" in it["filepath"]
    }
    return f"numpy {np.__version__}, {', '.join(sorted(found))}"
