"""One module a body, each with ``build(card) -> dict`` of the fields of ``arms.Arm``."""
