"""Errors of the plugin. Each error becomes one line on stderr and exit code 2."""

from typing import Any

import click


class PluginError(click.ClickException):
    """The command failed. The message is one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the error on stderr, with the name of the plugin first."""
        click.echo(f"kubectl-reschedule: {self.message}", err=True, file=file)


class ApiUnavailableError(PluginError):
    """The API server does not answer now. A retry may succeed."""
