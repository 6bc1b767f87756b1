"""Recipe and checkpoint headers -> Plan. `make` is the way in."""

from breadcrumbs.plan.making import make
from breadcrumbs.plan.partners import equal, twin
from breadcrumbs.plan.plan import Plan, TensorPlan

__all__ = ["Plan", "TensorPlan", "equal", "make", "twin"]
