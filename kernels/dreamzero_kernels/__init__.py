"""Triton kernels of a denoising evaluation, each beside its reference; needs torch and triton only.

An operation is a folder: its page has the public function, ``reference`` says in plain PyTorch what is
right, ``kernel`` is Triton. Importing this package imports neither.
"""
