"""A package, so that its fixtures end with its tests: there is one moto store at a time."""
