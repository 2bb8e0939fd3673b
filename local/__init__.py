"""Runs a SAM template on one machine: no Docker, no account. It knows nothing of the application in the template."""
