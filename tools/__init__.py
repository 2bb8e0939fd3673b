"""Commands that work on a running stack, here or in an account; they import nothing from functions/.

Three others write files from the code: schemas, catalogue and openapi. behind_start_api is no command, but runs in a
function of `sam local`.
"""
