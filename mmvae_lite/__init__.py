"""mmvae_lite: the models, bounds and experts of the book on multimodal variational autoencoders.

Importing the package needs torch, numpy, jaxtyping and safetensors, and does nothing else: no
network, no seed, no plotting settings.  Everything that trains or measures is in a submodule.
"""

__version__ = "0.1.0"
