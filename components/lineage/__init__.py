"""What a model comes from: the data, the parameters, the code and the image behind its weights."""
