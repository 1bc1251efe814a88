"""The paper's claims as cells: one training, its rollouts, and a line in a table.

``cells`` says what there is, ``recordings`` and ``training`` make it, ``runner`` runs what is missing,
``results`` reads it back with intervals. ``dreamzero experiment`` is the command.
"""
