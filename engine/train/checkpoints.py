"""Training states on disk by Orbax: written whole or not at all, the last few kept."""

from pathlib import Path
from typing import Any

import jax

from engine.train.step import TrainState


class Checkpoints:
    """The states of one run in a folder of its own. `close()` waits for what is being written.

    A process killed while it writes leaves the states before that one, and no half of it.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        import orbax.checkpoint as ocp

        self._args = ocp.args
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, state: TrainState, history: list[dict[str, float]]) -> None:
        """Writes a state and the curves until then, in the background."""
        args = self._args.Composite(
            state=self._args.StandardSave(state._asdict()), history=self._args.JsonSave({"rows": history})
        )
        self._manager.save(int(state.step), args=args)

    def latest(self, like: TrainState) -> tuple[TrainState, list[dict[str, float]]] | None:
        """The last state that was written whole, of the shapes of `like`; None in a new folder."""
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.eval_shape(lambda: like._asdict())
        args = self._args.Composite(
            state=self._args.StandardRestore(shapes), history=self._args.JsonRestore()
        )
        found: dict[str, Any] = self._manager.restore(step, args=args)
        return TrainState(**found["state"]), list(found["history"]["rows"])

    def close(self) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
