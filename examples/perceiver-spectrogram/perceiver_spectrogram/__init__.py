"""Sound as an input of Perceiver models: a plugin of perceiver."""
