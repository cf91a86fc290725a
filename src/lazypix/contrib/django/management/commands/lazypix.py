"""`manage.py lazypix …`: lazypix' command line with the project's settings, and `orphans`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from lazypix.contrib import commands
from lazypix.contrib.django import configured
from lazypix.contrib.django.orphans import find_orphans
from lazypix.errors import LazypixError, SettingsError, UnknownImage


class Command(BaseCommand):
    """Hands everything over to lazypix' own command line."""

    help = (
        "Runs lazypix with the settings of this project: `manage.py lazypix info IDENT`, `manage.py lazypix sweep`, "
        "`manage.py lazypix --help` for this text, `manage.py lazypix help` for all commands. `orphans` lists images "
        "that no row names; `orphans --delete` removes them."
    )
    requires_system_checks: Sequence[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("command", help="`orphans`, `help`, or a command of lazypix")
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, command: str, arguments: list[str], **__: Any) -> None:
        if command == "orphans":
            self._orphans(arguments)
            return
        given = ["--help"] if command == "help" else [command, *arguments]
        try:
            values = {**configured.given(), "base_url": configured.load_settings().base_url}
            commands.run(given, values, name="manage.py lazypix")
        except SettingsError as error:
            raise CommandError(str(error)) from None
        except SystemExit as end:
            if end.code:
                raise

    def _orphans(self, arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(prog="manage.py lazypix orphans")
        parser.add_argument("--delete", action="store_true", help="remove them")
        parser.add_argument(
            "--older-than", type=float, default=3600, metavar="SECONDS",
            help="leave alone what was stored later: its row may not be committed yet (default: 3600)",
        )  # fmt: skip
        chosen = parser.parse_args(arguments)
        found = 0
        try:
            for ident in find_orphans(older_than_s=chosen.older_than):
                found += 1
                if chosen.delete:
                    _delete(ident)
                self.stdout.write(f"deleted {ident}" if chosen.delete else ident)
        except (LazypixError, DatabaseError) as error:
            raise CommandError(str(error)) from error
        self.stderr.write(f"{found} images that no row names")


def _delete(ident: str) -> None:
    try:
        configured.library().delete(ident)
    except UnknownImage:
        return  # somebody else removed it
