"""A convolutional network at three strengths of the selectivity regularizer."""
