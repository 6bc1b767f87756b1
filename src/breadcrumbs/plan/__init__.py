"""Recipe and checkpoint headers -> Plan. `make` is the way in."""

from breadcrumbs.checkpoint.tied import equal
from breadcrumbs.plan.making import make
from breadcrumbs.plan.plan import Plan, TensorPlan
from breadcrumbs.plan.sizes import USUAL, Sizes
from breadcrumbs.plan.ties import twin

__all__ = ["USUAL", "Plan", "Sizes", "TensorPlan", "equal", "make", "twin"]
