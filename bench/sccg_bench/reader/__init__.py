"""Reader study: a blinded page of real and synthetic slices, and what the answers come to."""
