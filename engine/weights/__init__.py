from engine.weights.checkpoint import Checkpoint, load_checkpoint
from engine.weights.policy import Quant

__all__ = ["Checkpoint", "Quant", "load_checkpoint"]
