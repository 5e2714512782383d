"""`python -m operate.orphans` is `recover watch`."""

import typer

from operate.orphans.command import watch

if __name__ == "__main__":
    typer.run(watch)
