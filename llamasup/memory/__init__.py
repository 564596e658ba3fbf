"""What a model needs and what there is: the rungs it can be launched on."""
