"""The orders service: the API, and the status of orders."""
