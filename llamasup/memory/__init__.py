"""How much memory a model needs, how much there is, and the rungs that it can be launched on."""
