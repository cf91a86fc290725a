"""`python -m lazypix` and the `lazypix` command.

Renderer processes import this module again when they start, so it imports nothing itself.
"""


def main() -> None:
    """Run the command line."""
    from lazypix.cli.main import app

    app()


if __name__ == "__main__":
    main()
