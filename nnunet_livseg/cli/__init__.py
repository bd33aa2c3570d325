"""The command line ``livseg``: one small module per command; ``_dispatch`` says what a command is."""

from nnunet_livseg.cli._dispatch import commands, main

__all__ = ["commands", "main"]
