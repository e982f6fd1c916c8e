"""`sim:metal`, where the registry looks for it."""

from dsl.targets.sim.target import SIM_METAL as TARGET

__all__ = ["TARGET"]
