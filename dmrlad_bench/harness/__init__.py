"""Collection, training, evaluation and the run folder: what drives any agent on any family."""
