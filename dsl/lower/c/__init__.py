"""IR to C-like source for GPUs: one emitter, a table for each dialect, a formula for each layout."""
