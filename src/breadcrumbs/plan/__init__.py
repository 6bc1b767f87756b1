"""Recipe and checkpoint headers -> Plan. `make` is the way in."""

from breadcrumbs.plan.making import make
from breadcrumbs.plan.plan import Plan, TensorPlan
from breadcrumbs.plan.ties import equal, twin

__all__ = ["Plan", "TensorPlan", "equal", "make", "twin"]
