"""`python -m clmed`: the same as the `clmed` command (this is how torchrun starts it)."""

from clmed.cli import main

main()
