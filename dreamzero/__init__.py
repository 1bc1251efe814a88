"""DreamZero: a World Action Model that predicts video and actions with one diffusion transformer.

A clean-room implementation of "World Action Models are Zero-shot Policies" (arXiv 2602.15922).
Importing the package is cheap; torch, av, mujoco and jupyter are imported where they are used.
"""

__version__ = "0.1.0"
