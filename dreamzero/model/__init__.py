"""The networks: transformer, attention, positions, coders, codecs, text (import the module you need)."""
