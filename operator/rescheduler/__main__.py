"""`python -m rescheduler`."""

from rescheduler.cli.operator import main

main()
