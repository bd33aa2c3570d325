"""The command line ``livseg``: one small module per command; ``dispatch`` says what a command is."""

from nnunet_livseg.cli.dispatch import commands, main

__all__ = ["commands", "main"]
