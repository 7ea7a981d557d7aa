"""The ``fs3`` command: a table of commands, each imported only when it is used.

``fs3 --help`` reads the table alone, so it stays quick however many commands there are. A command is added by
one row. Exit codes: 0 done; 1 the operation failed; 2 wrong usage; daemons have more (``fs3.daemon``).
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import NamedTuple

import click

import fs3


class Row(NamedTuple):
    """One command: where it is found, and what the list of commands says about it."""

    target: str
    """``module:attribute`` of a ``click.Command``."""
    help: str
    """One line for ``fs3 --help``; the command's own help has the details and examples."""


COMMANDS: dict[str, dict[str, Row]] = {
    "Files (fs3://host[:port]/path or a cluster's name)": {
        "ls": Row("fs3.client.cli.looking:ls", "List directories."),
        "cat": Row("fs3.client.cli.looking:cat", "Write files to standard output."),
        "cp": Row("fs3.client.cli.copying:cp", "Copy in, out and within: recursive, parallel, verified."),
        "rm": Row("fs3.client.cli.changing:rm", "Remove files and trees."),
        "mkdir": Row("fs3.client.cli.changing:mkdir", "Make directories."),
        "stat": Row("fs3.client.cli.looking:stat_command", "Show everything about a file."),
    },
    "A cluster on this machine": {
        "demo": Row(
            "fs3.deploy.demo.command:demo", "Run the main job here: write, read, kill a node, verify."
        ),
        "dev": Row(
            "fs3.deploy.dev.commands:dev", "Start, stop, look at and damage a cluster of this machine."
        ),
    },
    "Daemons": {
        "kv": Row("fs3.deploy.daemons:kv", "Own the embedded key-value store of one machine."),
        "mgmtd": Row("fs3.deploy.daemons:mgmtd", "Manage a cluster: membership, leases, chains, routing."),
        "meta": Row("fs3.deploy.daemons:meta", "Serve names and attributes."),
        "storage": Row("fs3.deploy.daemons:storage", "Serve chunks from the disks of one machine."),
    },
    "Care of a cluster": {
        "fsck": Row("fs3.deploy.fsck.command:fsck", "Check a cluster while it works, and repair it."),
    },
    "Information": {
        "metrics": Row("fs3.deploy.metrics_command:metrics", "List every metric that the daemons export."),
    },
}
"""Commands by the section of ``fs3 --help`` in which they are shown."""


class TableGroup(click.Group):
    """A group whose commands come from a table and are imported at their first use."""

    def __init__(self, table: dict[str, dict[str, Row]], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]  # click's own keywords, passed through
        self._table = table
        self._rows = {name: row for rows in table.values() for name, row in rows.items()}
        assert len(self._rows) == sum(map(len, table.values())), "a command is listed twice"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(self._rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none of this name."""
        row = self._rows.get(cmd_name)
        if row is None:
            return None
        module, _, attribute = row.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), (cmd_name, row.target, type(command))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown name is answered with the nearest known one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self._rows, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table: nothing is imported for it."""
        for section, rows in self._table.items():
            if rows:
                with formatter.section(section):
                    formatter.write_dl([(name, row.help) for name, row in rows.items()])


@click.group(
    cls=TableGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(fs3.__version__, prog_name="fs3")
def cli() -> None:
    """fs3: a disaggregated file system for AI training and inference.

    "fs3 COMMAND --help" explains a command and shows examples.
    """


def main() -> None:
    """Entry point of the console script."""
    sys.exit(cli(prog_name="fs3"))


if __name__ == "__main__":
    main()
