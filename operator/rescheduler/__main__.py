"""Run the command line of the operator: `python -m rescheduler`."""

from rescheduler.cli.operator import main

main(prog_name="rescheduler")
