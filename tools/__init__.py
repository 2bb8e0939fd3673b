"""Commands for a running stack, local or deployed, and generators. The commands import nothing from functions/.

The generators are schemas, catalogue and openapi. behind_start_api runs inside a function of `sam local`.
"""
