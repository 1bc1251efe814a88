"""Checkpoints of others: names, layouts, import and export."""
