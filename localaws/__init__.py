"""Runs a SAM template on one machine, without Docker and without an AWS account. Works with any application."""
