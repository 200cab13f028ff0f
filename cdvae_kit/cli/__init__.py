"""The command `generate-crystals`, one file a command.

A command parses its options, calls one public function and prints. What it needs beyond Typer and rich is imported
when it runs, so that `--help` costs nothing.
"""
