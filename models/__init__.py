"""The embedded tiny text-to-image pipeline: its captions, renderer, training and figures."""
