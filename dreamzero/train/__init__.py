"""Training: the codec, the latents, and the loop (import the module you need)."""
