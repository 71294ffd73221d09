"""The zoo's own formats of models, and random data for any model."""
