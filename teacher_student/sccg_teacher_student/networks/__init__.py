"""Generators (``resnet``, ``s2d``) and the discriminator, each rebuilt from a GeneratorSpec."""
