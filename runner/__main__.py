"""`python -m runner` is `bin/score`."""

from runner.cli import main

main()
