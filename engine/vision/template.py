"""How a label becomes a sentence. Apart from the models: a request's body names it before JAX is there."""

TEMPLATE = "This is a photo of {}."
"""What zero-shot classification makes of a label, as transformers' pipeline does."""
