"""Commands that work on a running stack, here or in an account; they import nothing from functions/.

Three others write files from the code: schemas, catalogue and openapi.
"""
