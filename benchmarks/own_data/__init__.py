"""Default runs of ``perceiver fit`` on public labelled data, beside linear baselines on the same rows."""
