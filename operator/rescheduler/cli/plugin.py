"""`kubectl reschedule`: the plugin."""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """See and steer how nodes are drained."""
