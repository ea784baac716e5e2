"""`python -m geohsal`: the same as the command, for launchers that start modules."""

from geohsal.cli.main import main

main()
