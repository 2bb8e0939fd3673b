"""A package, so that what its tests share ends with them: moto holds one store at a time."""
