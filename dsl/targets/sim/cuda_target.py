"""`sim:cuda`, where the registry looks for it."""

from dsl.targets.sim.target import SIM_CUDA as TARGET

__all__ = ["TARGET"]
