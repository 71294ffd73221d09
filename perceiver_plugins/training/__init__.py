"""What the plugins' Lightning modules share: losses, optimizers, schedules, checkpoints and the order of data."""
