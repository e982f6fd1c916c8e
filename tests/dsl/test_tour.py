"""The notebook of the DSL still runs from top to bottom, and still shows what it says."""

import json
from pathlib import Path

import numpy as np

TOUR = Path(__file__).parents[2] / "experiments" / "dsl_tour.ipynb"


def test_the_tour_runs_and_every_planted_mistake_is_found(capsys):
    cells = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] or "import" in cell["source"][0] for cell in cells)
    space = {"__name__": "tour"}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), space)
    printed = capsys.readouterr().out
    assert "64 tokens: 0 masks" in printed and "60 tokens: 1 masks" in printed and "use atomic_add" in printed
    assert "bound by" in printed
    assert printed.count("    -> ") >= 3 and "-> None" not in printed
    expected = space["jax"].nn.log_softmax(space["x"])
    np.testing.assert_allclose(space["log_softmax"](space["x"]), expected, atol=1e-5)
