"""Convolutions and poolings of a loss, rewritten into what XLA makes fast on a CPU.

Inside a loop, XLA's CPU compiler has a fast program for a plain convolution of channels-last
arrays and for matrix products, and for little else: a convolution's gradients, a batch of kernels
(a grouped convolution) and the gradient of a max-pooling can take a hundred times as long
(jax-ml/jax issue 12868). `rewrite` leaves only what is fast in a function, before it is
differentiated; its results and gradients stay the same to rounding.

`rewriting` runs a program with other operations in place of some: the convolutions of `planes`, the
poolings of `pools`, which look through `windows`, and the `chains` of both; `samples` are taken in
parts.
"""

from lrjax.convolutions.rewriting import Rewritten, convolves, rewrite

__all__ = ["Rewritten", "convolves", "rewrite"]
