from engine.weights.build import Quant
from engine.weights.checkpoint import Checkpoint, load_checkpoint

__all__ = ["Checkpoint", "Quant", "load_checkpoint"]
