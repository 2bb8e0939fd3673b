"""Commands that work on a running stack, here or in an account. They import nothing from functions/."""
