"""Recipe and checkpoint headers -> Plan. `make` is the way in."""

from breadcrumbs.checkpoint.tied import equal
from breadcrumbs.plan.making import make
from breadcrumbs.plan.plan import Plan, TensorPlan
from breadcrumbs.plan.ties import twin

__all__ = ["Plan", "TensorPlan", "equal", "make", "twin"]
