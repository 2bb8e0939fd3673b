"""Python imports this module when a function's process starts, and this module imports the bugs of the test."""

import importlib
import os

importlib.import_module(os.environ["BUGS"])
