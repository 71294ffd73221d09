"""Sound as input of Perceiver models: a plugin for perceiver."""
